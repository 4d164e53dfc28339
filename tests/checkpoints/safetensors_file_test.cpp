#include "checkpoints/safetensors_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "kernels/common/error.h"
#include "tests/support/error_of.h"
#include "tests/support/files.h"

namespace graft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A file with this header, padded to 8 bytes, and `data_bytes` bytes of data: byte i holds i.
std::string file_of(std::string header, size_t data_bytes) {
  while (header.size() % 8 != 0) header += ' ';
  const uint64_t length = header.size();
  std::string out(reinterpret_cast<const char*>(&length), sizeof length);
  out += header;
  for (size_t i = 0; i < data_bytes; ++i) out += static_cast<char>(i);
  return out;
}

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape, int begin, int end) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}})", name, dtype, shape, begin, end);
}

TEST(SafetensorsFile, ReadsTensorsInTheOrderOfTheirData) {
  test::TemporaryFolder folder;
  test::write_file(folder / "m.safetensors",
                   file_of(R"({"__metadata__":{"format":"pt"},)" + entry("b", "BF16", "[2,3]", 8, 20) + "," +
                               entry("a", "F32", "[2]", 0, 8) + "," + entry("none", "I8", "[0,5]", 20, 20) + "," +
                               entry("scalar", "I8", "[]", 20, 21) + "}",
                           21));
  const SafetensorsFile file(folder / "m.safetensors");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  ASSERT_EQ(file.tensors().size(), 4u);
  EXPECT_EQ(file.tensors()[0].name, "a");
  const StoredTensor* b = file.find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->type, TensorType::kBF16);
  EXPECT_THAT(b->shape, ElementsAre(2, 3));
  EXPECT_EQ(b->num_elements(), 6);
  EXPECT_EQ(b->bytes.size(), 12u);
  EXPECT_EQ(static_cast<int>(b->bytes[0]), 8);
  EXPECT_EQ(file.find("none")->bytes.size(), 0u);
  EXPECT_EQ(file.find("scalar")->num_elements(), 1);
}

// Resident bytes of the mapping of a file, as the kernel counts them.
int64_t resident_bytes(const std::filesystem::path& file) {
  std::ifstream maps("/proc/self/smaps");
  int64_t kilobytes = 0;
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    const bool is_header = line.find_first_of("0123456789abcdef") == 0;   // a mapping's; what is said of it begins with a capital letter
    if (is_header) inside = line.ends_with(file.string());
    if (inside && line.starts_with("Rss:")) kilobytes += std::stoll(line.substr(4));
  }
  return kilobytes * 1024;
}

TEST(SafetensorsFile, ForgetsThePagesOfItsOwnBytesAlone) {
  constexpr int kBytes = 1 << 20;
  test::TemporaryFolder folder;
  test::write_file(folder / "m.safetensors", file_of("{" + entry("a", "U8", "[1048576]", 0, kBytes) + "}", kBytes));
  const SafetensorsFile file(folder / "m.safetensors");
  const auto bytes = file.find("a")->bytes;
  const auto sum = [&] { return std::accumulate(bytes.begin(), bytes.end(), int64_t{0}, [](int64_t sum, std::byte byte) { return sum + static_cast<int>(byte); }); };
  const int64_t expected = sum();
  EXPECT_GE(resident_bytes(folder / "m.safetensors"), kBytes);
  file.forget(bytes);
  EXPECT_LE(resident_bytes(folder / "m.safetensors"), 1 << 16);   // the header's, and what the kernel maps around it
  EXPECT_EQ(sum(), expected);
  std::vector<std::byte> elsewhere(kBytes, std::byte{7});
  file.forget(elsewhere);   // of anonymous memory the system would keep nothing
  EXPECT_EQ(std::count(elsewhere.begin(), elsewhere.end(), std::byte{7}), kBytes);
}

struct Damage {
  const char* name;
  std::string text;
  const char* message;
};

std::vector<Damage> damages() {
  const std::string a = entry("a", "F32", "[2]", 0, 8);
  const std::string huge_length("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10);
  std::string nested = "{\"a\":";
  for (int i = 0; i < 5000; ++i) nested += '[';
  return {
      {"empty", "", "expected 8 bytes for the length of the header"},
      {"seven_bytes", "1234567", "expected 8 bytes for the length of the header"},
      {"absurd_header", huge_length, "expected a header of 2 to 33554432 bytes, got 18446744073709551615"},
      {"header_past_the_end", file_of("{" + a + "}", 8).substr(0, 40), "expected a header of 2 to"},
      {"no_brace", file_of("[1,2,3]", 0), "expected the header to begin with '{'"},
      {"no_json", file_of("{\"a\":", 0), "expected the header as JSON, got parse error"},
      {"bad_utf8", file_of("{\"\xff\":1}", 0), "expected the header as JSON"},
      {"json_then_more", file_of("{" + a + "}{}", 8), "expected the header as JSON"},
      {"deep", file_of(nested, 0), "expected at most 4 levels of nesting"},
      {"duplicate_name", file_of("{" + a + "," + entry("a", "F32", "[2]", 8, 16) + "}", 16),
       "expected every key once in the header, got \"a\" twice"},
      {"duplicate_field", file_of(R"({"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8),
       "got \"dtype\" twice"},
      {"unknown_dtype", file_of("{" + entry("a", "F13", "[2]", 0, 8) + "}", 8), "expected a dtype that graft reads"},
      {"block_dtype", file_of("{" + entry("a", "Q4_1", "[32]", 0, 20) + "}", 20), "expected a dtype that graft reads"},
      {"dtype_number", file_of(R"({"a":{"dtype":3,"shape":[2],"data_offsets":[0,8]}})", 8),
       "expected a dtype that graft reads"},
      {"no_shape", file_of(R"({"a":{"dtype":"F32","data_offsets":[0,8]}})", 8), "and no other key"},
      {"extra_field", file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}})", 8), "and no other key"},
      {"entry_is_list", file_of(R"({"a":[1]})", 0), "and no other key, got [1]"},
      {"negative_shape", file_of("{" + entry("a", "F32", "[-2]", 0, 8) + "}", 8),
       "expected a shape of at most 16 integers from 0 on, got [-2]"},
      {"float_shape", file_of("{" + entry("a", "F32", "[2.0]", 0, 8) + "}", 8), "expected a shape of at most 16 integers"},
      {"huge_shape", file_of("{" + entry("a", "F32", "[18446744073709551615]", 0, 8) + "}", 8),
       "expected a shape of at most 16 integers"},
      {"many_dimensions", file_of("{" + entry("a", "F32", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2]", 0, 8) + "}", 8),
       "expected a shape of at most 16 integers"},
      {"overflowing_shape", file_of("{" + entry("a", "F32", "[4294967296,4294967296]", 0, 8) + "}", 8),
       "expected fewer than 2^63 bytes for F32"},
      {"one_offset", file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8]}})", 8),
       "expected data_offsets [begin, end]"},
      {"offsets_swapped", file_of("{" + entry("a", "F32", "[2]", 8, 0) + "}", 8), "expected data_offsets [begin, end]"},
      {"offset_overflow", file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,9223372036854775807]}})", 8),
       "expected 8 bytes for F32 of shape [2]"},
      {"shape_and_offsets", file_of("{" + entry("a", "F32", "[3]", 0, 8) + "}", 8),
       "expected 12 bytes for F32 of shape [3], got data_offsets [0, 8], which hold 8"},
      {"hole", file_of("{" + a + "," + entry("b", "F32", "[1]", 12, 16) + "}", 16),
       "at offset 8, right behind the one before it, got 12: a hole (tensor \"b\""},
      {"hole_at_start", file_of("{" + entry("a", "F32", "[1]", 4, 8) + "}", 8),
       "at offset 0, right behind the one before it, got 4: a hole"},
      {"overlap", file_of("{" + a + "," + entry("b", "F32", "[1]", 4, 8) + "}", 8), "got 4: they overlap (tensor \"b\""},
      {"cut_data", file_of("{" + a + "}", 7), "expected data up to byte 8, got a data section of 7 bytes"},
      {"rest", file_of("{" + a + "}", 9), "expected 8 bytes of data, got 9: bytes that belong to no tensor"},
      {"misaligned", file_of("{" + entry("a", "I8", "[1]", 0, 1) + "," + entry("b", "F32", "[1]", 1, 5) + "}", 5),
       "misaligned (tensor \"b\""},
      {"metadata_of_numbers", file_of(R"({"__metadata__":{"x":1}})", 0), "expected __metadata__ to map strings to strings"},
      {"metadata_list", file_of(R"({"__metadata__":["x"]})", 0), "expected __metadata__ to map strings to strings"},
  };
}

class SafetensorsDamage : public ::testing::TestWithParam<Damage> {};

TEST_P(SafetensorsDamage, IsOneClearError) {
  test::TemporaryFolder folder;
  test::write_file(folder / "m.safetensors", GetParam().text);
  const std::string error = test::error_of([&] { SafetensorsFile(folder / "m.safetensors"); });
  EXPECT_THAT(error, HasSubstr("[graft.checkpoints] expected "));
  EXPECT_THAT(error, HasSubstr(GetParam().message));
  EXPECT_THAT(error, HasSubstr("m.safetensors"));
  EXPECT_THAT(error, HasSubstr(" — "));
}

INSTANTIATE_TEST_SUITE_P(All, SafetensorsDamage, ::testing::ValuesIn(damages()),
                         [](const auto& info) { return info.param.name; });

TEST(SafetensorsFile, AnyCutOrChangedByteIsReadOrAnError) {
  test::TemporaryFolder folder;
  const std::string whole = file_of("{" + entry("a", "F32", "[2]", 0, 8) + "}", 8);
  for (size_t i = 0; i < whole.size(); ++i) {
    test::write_file(folder / "m.safetensors", whole.substr(0, i));
    EXPECT_THAT(test::error_of([&] { SafetensorsFile(folder / "m.safetensors"); }), HasSubstr("[graft.checkpoints] expected ")) << i;
    std::string changed = whole;
    changed[i] = static_cast<char>(changed[i] ^ 0x01);
    test::write_file(folder / "m.safetensors", changed);
    test::error_of([&] { SafetensorsFile(folder / "m.safetensors"); });  // anything but a UserError leaves the test
  }
}

class ShardedDirectory : public ::testing::Test {
 protected:
  void SetUp() override {
    test::write_file(folder_ / "one.safetensors", file_of("{" + entry("a", "F32", "[2]", 0, 8) + "}", 8));
    test::write_file(folder_ / "two.safetensors",
                     file_of("{" + entry("b", "F32", "[2]", 0, 8) + "," + entry("c", "I8", "[1]", 8, 9) + "}", 9));
    index(R"("a":"one.safetensors","b":"two.safetensors","c":"two.safetensors")");
  }
  void index(const std::string& weight_map) {
    test::write_file(folder_ / "model.safetensors.index.json",
                     R"({"metadata":{"total_size":17},"weight_map":{)" + weight_map + "}}");
  }
  std::string error() {
    return test::error_of([&] { open_tensors(folder_.path()); });
  }
  test::TemporaryFolder folder_;
};

TEST_F(ShardedDirectory, IsOneSource) {
  const auto source = open_tensors(folder_.path());
  EXPECT_EQ(source->tensors().size(), 3u);
  EXPECT_EQ(source->files().size(), 2u);
  EXPECT_EQ(source->find("c")->file.filename(), "two.safetensors");
}

TEST_F(ShardedDirectory, AllThatIsWrongIsOneError) {
  test::write_file(folder_ / "two.safetensors",
                   file_of("{" + entry("a", "F32", "[2]", 0, 8) + "," + entry("x", "I8", "[1]", 8, 9) + "}", 9));
  index(R"("a":"one.safetensors","b":"two.safetensors","gone":"three.safetensors")");
  const std::string text = error();
  EXPECT_THAT(text, HasSubstr("got 4 differences"));
  EXPECT_THAT(text, HasSubstr("shard \"three.safetensors\" is missing"));
  EXPECT_THAT(text, HasSubstr("tensor \"b\" is not in \"two.safetensors\""));
  EXPECT_THAT(text, HasSubstr("tensor \"a\" is in one.safetensors and in two.safetensors"));
  EXPECT_THAT(text, HasSubstr("tensor \"x\" of \"two.safetensors\" is not in the index"));
}

TEST_F(ShardedDirectory, ATensorInAnotherShardThanListedIsAnError) {
  index(R"("a":"two.safetensors","b":"two.safetensors","c":"one.safetensors")");
  EXPECT_THAT(error(), HasSubstr("tensor \"a\" is in \"one.safetensors\", not in \"two.safetensors\""));
}

TEST_F(ShardedDirectory, AnIndexCannotLeaveItsFolder) {
  for (const char* file : {"../one.safetensors", "/etc/passwd", "sub/one.safetensors", "..", "one.bin"}) {
    index(fmt::format(R"("a":"{}")", file));
    EXPECT_THAT(error(), HasSubstr("expected the name of a .safetensors file in the same folder")) << file;
  }
}

TEST_F(ShardedDirectory, AnIndexIsStrictJson) {
  index(R"("a":"one.safetensors","a":"two.safetensors")");
  EXPECT_THAT(error(), HasSubstr("expected every key once in the index, got \"a\" twice"));
  test::write_file(folder_ / "model.safetensors.index.json", "{}");
  EXPECT_THAT(error(), HasSubstr("expected an object with a \"weight_map\""));
  test::write_file(folder_ / "model.safetensors.index.json", "");
  EXPECT_THAT(error(), HasSubstr("expected the index as JSON"));
}

TEST(OpenTensors, NamesTheConversionOfPicklesAndNeverReadsThem) {
  test::TemporaryFolder folder;
  test::write_file(folder / "pytorch_model.bin", "never read");
  EXPECT_THAT(test::error_of([&] { open_tensors(folder.path()); }),
              HasSubstr("Python pickles, which can execute code when they are read: pytorch_model.bin"));
  EXPECT_THAT(test::error_of([&] { open_tensors(folder.path()); }), HasSubstr("safe_serialization=True"));
  for (const char* name : {"m.bin", "m.pt", "m.pth"}) {
    test::write_file(folder / name, "never read");
    EXPECT_THAT(test::error_of([&] { open_tensors(folder / name); }), HasSubstr("m.safetensors', metadata={'format': 'pt'})"))
        << name;
  }
}

TEST(OpenTensors, TheConversionInItsErrorWorks) {
  test::TemporaryFolder folder;
  const std::string bin = (folder / "m.pt").string();
  test::write_file(folder / "make.py", "import torch; t = torch.ones(3, 2); torch.save({'a': t, 'tied': t}, '" + bin + "')");
  const std::string python = (test::source_dir() / ".deps/python/bin/python").string();
  ASSERT_EQ(std::system((python + " " + (folder / "make.py").string()).c_str()), 0);
  const std::string error = test::error_of([&] { open_tensors(folder / "m.pt"); });
  const size_t start = error.find("python -c ");
  ASSERT_NE(start, std::string::npos);
  ASSERT_EQ(std::system((python + error.substr(start + 6)).c_str()), 0) << error;
  const auto source = open_tensors(folder / "m.safetensors");
  EXPECT_THAT(source->find("tied")->shape, ElementsAre(3, 2));
}

TEST(OpenTensors, SaysWhatADirectoryLacks) {
  test::TemporaryFolder folder;
  EXPECT_THAT(test::error_of([&] { open_tensors(folder.path()); }), HasSubstr("got neither"));
  test::write_file(folder / "other.gguf", "");
  EXPECT_THAT(test::error_of([&] { open_tensors(folder.path()); }), HasSubstr("got other.gguf"));
  EXPECT_THAT(test::error_of([&] { open_tensors(folder / "absent"); }), HasSubstr("does not exist"));
  test::write_file(folder / "notes.txt", "text");
  EXPECT_THAT(test::error_of([&] { open_tensors(folder / "notes.txt"); }), HasSubstr("notes.txt"));
}

TEST(OpenTensors, ListsPythonFiles) {
  test::TemporaryFolder folder;
  std::filesystem::create_directories(folder / "sub");
  test::write_file(folder / "modeling_x.py", "");
  test::write_file(folder / "sub/b.py", "");
  test::write_file(folder / "config.json", "");
  const auto files = python_files(folder.path());
  EXPECT_THAT(files, ElementsAre(folder / "modeling_x.py", folder / "sub/b.py"));
}

}  // namespace
}  // namespace graft
