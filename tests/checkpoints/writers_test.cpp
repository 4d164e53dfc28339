#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "checkpoints/gguf_writer.h"
#include "checkpoints/hash.h"
#include "checkpoints/safetensors_file.h"
#include "checkpoints/safetensors_writer.h"
#include "kernels/common/error.h"
#include "tests/support/error_of.h"
#include "tests/support/files.h"

namespace graft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::byte> counted_bytes(size_t count, int first) {
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>((first + static_cast<int>(i)) % 64);
  return bytes;
}

size_t files_in(const std::filesystem::path& folder) {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder), {}));
}

int mode_of(const std::filesystem::path& path) {
  struct stat status {};
  stat(path.c_str(), &status);
  return static_cast<int>(status.st_mode & 0777);
}

const std::vector<TensorDeclaration> kEveryType = {
    {"z.f32", TensorType::kF32, {2, 3}}, {"half", TensorType::kF16, {3}},  {"brain", TensorType::kBF16, {5}},
    {"a.f32", TensorType::kF32, {1}},    {"long", TensorType::kI64, {2}},  {"int", TensorType::kI32, {1, 1}},
    {"short", TensorType::kI16, {1}},    {"byte", TensorType::kU8, {7}},   {"signed", TensorType::kI8, {3}},
    {"double", TensorType::kF64, {1}},   {"flag", TensorType::kBool, {1}}, {"e4m3", TensorType::kF8E4M3, {2}},
    {"e5m2", TensorType::kF8E5M2, {2}},  {"scalar", TensorType::kF32, {}}, {"none", TensorType::kF32, {0, 4}},
};

TEST(SafetensorsWriter, WritesTheBytesThatTheLibraryWrites) {
  test::TemporaryFolder folder;
  SafetensorsWriter writer(folder / "m.safetensors", kEveryType);
  int first = 0;
  for (const auto& tensor : kEveryType)
    writer.write(tensor.name, counted_bytes(tensor.name == "flag" ? 1 : *bytes_of(tensor.type, tensor.shape), ++first % 2));
  EXPECT_FALSE(std::filesystem::exists(folder / "m.safetensors"));  // until it is whole
  writer.finish();
  EXPECT_EQ(mode_of(folder / "m.safetensors"), 0600);
  const auto read = nlohmann::json::parse(test::run_python(
      "tests/checkpoints/read_with_libraries.py", {"safetensors", folder / "m.safetensors", folder / "same.safetensors"}));
  EXPECT_EQ(read.size(), kEveryType.size());
  EXPECT_EQ(read["z.f32"], nlohmann::json({"torch.float32", {2, 3}}));
  EXPECT_EQ(test::read_file(folder / "m.safetensors"), test::read_file(folder / "same.safetensors"));
  const SafetensorsFile file(folder / "m.safetensors");
  for (const auto& tensor : kEveryType) EXPECT_EQ(file.find(tensor.name)->shape, tensor.shape) << tensor.name;
}

TEST(SafetensorsWriter, RefusesMistakes) {
  test::TemporaryFolder folder;
  const auto path = folder / "m.safetensors";
  EXPECT_THAT(test::error_of<UserError>([&] {
                SafetensorsWriter(path, {{"a", TensorType::kQ4_1, {32}}});
              }),
              HasSubstr("got Q4_1 (tensor \"a\""));
  EXPECT_THAT(test::error_of<UserError>([&] { SafetensorsWriter(path, {{"a"}, {"a"}}); }), HasSubstr("every tensor name once"));
  {
    SafetensorsWriter writer(path, {{"a", TensorType::kI8, {2}}, {"b", TensorType::kI8, {2}}});
    EXPECT_THAT(test::error_of<std::logic_error>([&] { writer.write("c", {}); }), HasSubstr("c was not declared"));
    EXPECT_THAT(test::error_of<std::logic_error>([&] { writer.write("a", {}); }), HasSubstr("declared with 2 bytes, got 0"));
    writer.write("a", counted_bytes(2, 0));
    EXPECT_THAT(test::error_of<std::logic_error>([&] { writer.write("a", counted_bytes(2, 0)); }), HasSubstr("written twice"));
    EXPECT_THAT(test::error_of<std::logic_error>([&] { writer.finish(); }), HasSubstr("b of"));
  }
  EXPECT_EQ(files_in(folder.path()), 0u);  // nothing half-written is left
}

TEST(SafetensorsDirectoryWriter, ShardsAndIndexesAndReadsBack) {
  test::TemporaryFolder folder;
  const auto model = folder / "new/model";
  SafetensorsDirectoryWriter writer(
      model, {{"a", TensorType::kI8, {60}}, {"b", TensorType::kI8, {50}}, {"c", TensorType::kI8, {40}}}, 100);
  ASSERT_EQ(writer.num_shards(), 2u);
  writer.write("c", counted_bytes(40, 3));
  writer.write("b", counted_bytes(50, 2));
  writer.write("a", counted_bytes(60, 1));
  writer.finish();
  EXPECT_EQ(mode_of(model), 0700);
  const auto source = open_tensors(model);
  EXPECT_EQ(source->files().size(), 2u);
  EXPECT_EQ(source->find("c")->file.filename(), "model-00002-of-00002.safetensors");
  EXPECT_EQ(static_cast<int>(source->find("c")->bytes[0]), 3);
  const auto index = nlohmann::json::parse(test::read_file(model / "model.safetensors.index.json"));
  EXPECT_EQ(index["metadata"]["total_size"], 150);

  SafetensorsDirectoryWriter single(folder / "single", {{"a", TensorType::kI8, {60}}});
  single.write("a", counted_bytes(60, 1));
  single.finish();
  EXPECT_EQ(files_in(folder / "single"), 1u);
  EXPECT_EQ(open_tensors(folder / "single")->tensors().size(), 1u);
}

TEST(GgufWriter, IsReadByGgufPyAndByUs) {
  test::TemporaryFolder folder;
  const auto path = folder / "m.gguf";
  const std::vector<GgufEntry> metadata = {
      gguf_string("general.architecture", "llama"),
      gguf_u32("u32", 4000000000u),
      gguf_i32("i32", -3),
      gguf_u64("u64", 1ull << 60),
      gguf_f32("f32", 1e-5f),
      gguf_bool("no", false),
      gguf_strings("words", {"a", "", "\xc4\xa0the"}),
      gguf_i32s("i32s", {-1, 2}),
      gguf_u32s("u32s", {7}),
      gguf_f32s("f32s", {0.5f, -2.0f}),
      {"u8", GgufType::kU8, {}, uint64_t{255}},
      {"i8", GgufType::kI8, {}, int64_t{-128}},
      {"u16", GgufType::kU16, {}, uint64_t{65535}},
      {"i16", GgufType::kI16, {}, int64_t{-5}},
      {"i64", GgufType::kI64, {}, int64_t{-5}},
      {"f64", GgufType::kF64, {}, 1e-300},
      {"flags", GgufType::kArray, GgufType::kBool, std::vector<bool>{true, false}},
  };
  GgufWriter writer(
      path, metadata,
      {{"one", TensorType::kF32, {3}}, {"two", TensorType::kQ4_1, {2, 64}}, {"three", TensorType::kF16, {2, 2, 2}}});
  writer.write("three", counted_bytes(16, 9));
  writer.write("one", counted_bytes(12, 1));
  writer.write("two", counted_bytes(80, 5));
  writer.finish();
  EXPECT_EQ(mode_of(path), 0600);

  const auto read = nlohmann::json::parse(test::run_python("tests/checkpoints/read_with_libraries.py", {"gguf", path}));
  const auto& fields = read["fields"];
  EXPECT_EQ(fields["general.architecture"], "llama");
  EXPECT_EQ(fields["u32"], 4000000000u);
  EXPECT_EQ(fields["i8"], -128);
  EXPECT_EQ(fields["u64"], 1ull << 60);
  EXPECT_EQ(fields["f64"], 1e-300);
  EXPECT_EQ(fields["no"], false);
  EXPECT_EQ(fields["words"], nlohmann::json({"a", "", "\xc4\xa0the"}));
  EXPECT_EQ(fields["i32s"], nlohmann::json({-1, 2}));
  EXPECT_EQ(fields["flags"], nlohmann::json({true, false}));
  EXPECT_EQ(read["types"]["i16"], nlohmann::json({3}));
  EXPECT_EQ(read["tensors"]["two"][0], "Q4_1");
  EXPECT_EQ(read["tensors"]["two"][1], nlohmann::json({64, 2}));
  EXPECT_EQ(read["tensors"]["three"][2].get<std::string>().substr(0, 6), "090a0b");

  const GgufFile file(path);
  ASSERT_EQ(file.metadata().size(), metadata.size());
  for (size_t i = 0; i < metadata.size(); ++i) {
    EXPECT_EQ(file.metadata()[i].key, metadata[i].key);
    EXPECT_EQ(file.metadata()[i].type, metadata[i].type);
    EXPECT_TRUE(file.metadata()[i].value == metadata[i].value) << metadata[i].key;
  }
  EXPECT_THAT(file.find("two")->shape, ElementsAre(2, 64));
  EXPECT_EQ(static_cast<int>(file.find("two")->bytes[79]), (5 + 79) % 64);
}

TEST(GgufWriter, RefusesWhatLlamaCppWouldNotRead) {
  test::TemporaryFolder folder;
  const auto error = [&](std::vector<GgufEntry> metadata, std::vector<TensorDeclaration> tensors) {
    return test::error_of<UserError>([&] { GgufWriter(folder / "m.gguf", metadata, tensors); });
  };
  EXPECT_THAT(error({gguf_u32("k", 1), gguf_u32("k", 1)}, {}), HasSubstr("expected every metadata key once, got \"k\" twice"));
  EXPECT_THAT(error({{"k", GgufType::kU8, {}, uint64_t{256}}}, {}), HasSubstr("expected a value of type uint8"));
  EXPECT_THAT(error({{"k", GgufType::kI32, {}, uint64_t{1}}}, {}), HasSubstr("expected a value of type int32"));
  EXPECT_THAT(error({{"k", GgufType::kString, {}, 1.5}}, {}), HasSubstr("expected a value of type string"));
  EXPECT_THAT(error({gguf_u32("general.alignment", 3)}, {}), HasSubstr("power of two"));
  EXPECT_THAT(error({}, {{std::string(64, 'x')}}), HasSubstr("a tensor name of 1 to 63 bytes"));
  EXPECT_THAT(error({}, {{"a", TensorType::kU8, {4}}}), HasSubstr("expected a type that GGUF has, got U8"));
  EXPECT_THAT(error({}, {{"a", TensorType::kF32, {}}}), HasSubstr("expected 1 to 4 dimensions"));
  EXPECT_THAT(error({}, {{"a", TensorType::kF32, {1, 0}}}), HasSubstr("expected 1 to 4 dimensions"));
  EXPECT_THAT(error({}, {{"a", TensorType::kQ4_K, {2, 128}}}), HasSubstr("the innermost a multiple of 256 for Q4_K"));
  EXPECT_THAT(error({}, {{"a", TensorType::kF32, {1}}, {"a", TensorType::kF32, {1}}}), HasSubstr("every tensor name once"));
  EXPECT_EQ(files_in(folder.path()), 0u);
}

// A file size limit stands in for a full disk: write and fallocate fail in the same places.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) {
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FullDisk() { setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

TEST(AtomicFile, AFullDiskNamesTheFileAndLeavesTheOldOne) {
  test::TemporaryFolder folder;
  write_file_atomic(folder / "state", "old");
  {
    const FullDisk full(1000);
    const std::string large(5000, 'x');
    EXPECT_THAT(test::error_of<MachineError>([&] { write_file_atomic(folder / "state", large); }),
                HasSubstr("cannot write " + (folder / "state").string()));
    EXPECT_THAT(test::error_of<MachineError>([&] {
                  SafetensorsWriter(folder / "m.safetensors", {{"a", TensorType::kI8, {5000}}});
                }),
                HasSubstr("cannot reserve"));
  }
  EXPECT_EQ(test::read_file(folder / "state"), "old");
  EXPECT_EQ(files_in(folder.path()), 1u);
}

TEST(AtomicFile, ReplacesWholeFilesAndIsPrivate) {
  test::TemporaryFolder folder;
  test::write_file(folder / "state.partial", "left by a killed process, longer than the new text");
  write_file_atomic(folder / "state", "new");
  EXPECT_EQ(test::read_file(folder / "state"), "new");
  EXPECT_EQ(mode_of(folder / "state"), 0600);
  EXPECT_EQ(files_in(folder.path()), 1u);
  EXPECT_THAT(test::error_of<MachineError>([&] { write_file_atomic(folder / "absent/state", "x"); }),
              HasSubstr("No such file or directory"));
}

TEST(Folders, ArePrivateAndRenamedWhole) {
  test::TemporaryFolder folder;
  make_private_directory(folder / "a/b/c");
  EXPECT_EQ(mode_of(folder / "a/b"), 0700);
  make_private_directory(folder / "a/b/c");  // again: nothing happens
  write_file_atomic(folder / "a/b/c/file", "text");
  rename_directory_atomic(folder / "a/b/c", folder / "done");
  EXPECT_EQ(test::read_file(folder / "done/file"), "text");
  make_private_directory(folder / "empty");
  EXPECT_THAT(test::error_of<MachineError>([&] { rename_directory_atomic(folder / "done", folder / "empty"); }),
              HasSubstr("File exists"));
  EXPECT_THAT(test::error_of<MachineError>([&] { make_private_directory(folder / "done/file"); }), HasSubstr("Not a directory"));
}

TEST(Sha256, KnowsTheStandardsVectors) {
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256().update("a").update("bc").finish(), sha256("abc"));
  test::TemporaryFolder folder;
  test::write_file(folder / "million", std::string(1'000'000, 'a') + std::string(1'000'000, 'a'));
  EXPECT_EQ(sha256_file(folder / "million"), sha256(std::string(2'000'000, 'a')));
  EXPECT_EQ(sha256(std::string(1'000'000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  EXPECT_THROW(sha256_file(folder / "absent"), UserError);
  std::stop_source given_up;
  given_up.request_stop();
  EXPECT_THROW(sha256_file(folder / "million", given_up.get_token()), std::runtime_error);
}

}  // namespace
}  // namespace graft
