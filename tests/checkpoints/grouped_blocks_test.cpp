#include "checkpoints/codecs/grouped_blocks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "kernels/quantized/dequantize.h"
#include "tests/support/error_of.h"
#include "tests/support/files.h"
#include "tests/support/normal_values.h"

namespace graft {
namespace {

using ::testing::HasSubstr;
using test::error_of;

std::vector<float> decoded(const GroupedBlocks& blocks, int64_t count) {
  EXPECT_EQ(static_cast<int64_t>(blocks.bytes.size()), count / info(blocks.type).block_elements * info(blocks.type).block_bytes);
  std::vector<float> values(static_cast<size_t>(count));
  dequantize(blocks.type, blocks.bytes.data(), count, values.data());
  return values;
}

std::vector<float> normal(size_t count, uint32_t seed) { return test::normal_values(count, seed, 0.01F); }

std::vector<uint8_t> random_bytes(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint8_t> bytes(count);
  for (auto& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

TEST(GroupedBlocks, Int4IsWhatCompressedTensorsPacked) {
  const test::TemporaryFolder folder;
  test::run_python("tests/checkpoints/grouped_blocks_golden.py", {folder.path().string()});
  for (const int64_t group : {32, 64, 128}) {
    for (const std::string kind : {"symmetric", "half", "zero"}) {
      SCOPED_TRACE(std::to_string(group) + " " + kind);
      const auto file = [&](const char* ending) { return folder.path() / (std::to_string(group) + "_" + kind + ending); };
      const auto expected = test::read_values<float>(file(".values"));
      const auto blocks = int4_blocks("w", 13, 256, group, test::read_values<uint32_t>(file(".words")), test::read_values<float>(file(".scales")),
                                      test::read_values<uint32_t>(file(".zeros")));
      const bool symmetric = kind == "symmetric";
      EXPECT_EQ(info(blocks.type).name, "I4_" + std::to_string(group) + (symmetric ? "" : "_ZERO"));
      const auto values = decoded(blocks, 13 * 256);
      for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], expected[i]) << i;
    }
  }
}

TEST(GroupedBlocks, Fp8TakesTheScaleOfItsRectangle) {
  constexpr int64_t kRows = 130, kColumns = 384;
  auto codes = random_bytes(kRows * kColumns, 1);
  for (auto& code : codes) code = (code & 0x7f) == 0x7f ? 0 : code;
  std::vector<float> plain(codes.size());
  dequantize(TensorType::kF8E4M3, reinterpret_cast<const std::byte*>(codes.data()), kRows * kColumns, plain.data());
  const std::pair<int64_t, int64_t> rectangles[] = {{128, 128}, {1, kColumns}, {kRows, kColumns}, {1, 128}, {64, 256}, {1, 64}};
  for (const auto& [rows, columns] : rectangles) {
    const int64_t of_row = (kColumns + columns - 1) / columns, count = (kRows + rows - 1) / rows * of_row;
    const auto scales = normal(static_cast<size_t>(count), 2);
    const auto values = decoded(fp8_blocks("w", kRows, kColumns, codes, rows, columns, scales), kRows * kColumns);
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t c = 0; c < kColumns; ++c) {
        const auto at = static_cast<size_t>(r * kColumns + c);
        ASSERT_EQ(values[at], plain[at] * scales[static_cast<size_t>(r / rows * of_row + c / columns)]) << r << " " << c;
      }
    }
  }
}

TEST(GroupedBlocks, Nf4HasItsFirstElementInTheHighNibble) {
  constexpr int64_t kRows = 9, kColumns = 192;
  constexpr float kNormalFloat4[16] = {-1.0F, -0.6961928F, -0.52507305F, -0.3949175F, -0.28444138F, -0.18477343F, -0.091050036F, 0.0F,
                                       0.0795803F, 0.1609302F, 0.2461123F, 0.33791524F, 0.44070983F, 0.562617F, 0.72295684F, 1.0F};
  const auto packed = random_bytes(kRows * kColumns / 2, 3), codes = random_bytes(kRows * kColumns / 64, 4);
  const auto map = normal(256, 5), nested = normal(2, 6);
  const auto statistics = nf4_statistics("w", codes, map, nested, 16, 0.25F);
  const auto values = decoded(nf4_blocks("w", kRows, kColumns, packed, statistics), kRows * kColumns);
  for (size_t i = 0; i < values.size(); ++i) {
    const double statistic = static_cast<double>(map[codes[i / 64]]) * nested[i / 64 / 16] + 0.25;
    const int code = i % 2 == 0 ? packed[i / 2] >> 4 : packed[i / 2] & 15;
    ASSERT_NEAR(values[i], kNormalFloat4[code] * statistic, 3e-8) << i;
  }
}

TEST(GroupedBlocks, WhatDoesNotFitIsNamed) {
  const std::vector<uint8_t> bytes(256);
  const std::vector<uint32_t> words(32), zeros(2);
  const std::vector<float> scales(2, 0.5F), odd(2, 0.1F), one(1);
  EXPECT_THAT(error_of([&] { int4_blocks("w", 1, 256, 48, words, scales, {}); }), HasSubstr("w: expected INT4 in groups of a multiple of 32, got 48"));
  EXPECT_THAT(error_of([&] { int4_blocks("w", 1, 192, 128, words, scales, {}); }), HasSubstr("whole groups of 128, got 192 — the last group is cut"));
  EXPECT_THAT(error_of([&] { int4_blocks("w", 1, 256, 128, std::span(words).first(31), scales, {}); }), HasSubstr("expected 32 of words of codes, got 31"));
  EXPECT_THAT(error_of([&] { int4_blocks("w", 1, 256, 128, words, one, {}); }), HasSubstr("expected 2 of scales, got 1"));
  EXPECT_THAT(error_of([&] { int4_blocks("w", 9, 256, 128, std::vector<uint32_t>(288), std::vector<float>(18), zeros); }), HasSubstr("expected 4 of words of zero points, got 2"));
  EXPECT_THAT(error_of([&] { int4_blocks("w", 1, 256, 128, words, odd, {}); }), HasSubstr("scales that bfloat16 or float16 can hold"));
  EXPECT_EQ(error_of([&] { int4_blocks("w", 1, 256, 128, words, scales, zeros); }), "no error");
  EXPECT_THAT(error_of([&] { fp8_blocks("w", 1, 96, bytes, 128, 128, scales); }), HasSubstr("whole groups of 64, got 96"));
  EXPECT_THAT(error_of([&] { fp8_blocks("w", 1, 256, bytes, 128, 32, scales); }), HasSubstr("expected a scale for whole groups of 64 columns, got one for [128, 32]"));
  EXPECT_THAT(error_of([&] { fp8_blocks("w", 1, 256, bytes, 0, 128, scales); }), HasSubstr("got one for [0, 128]"));
  EXPECT_THAT(error_of([&] { fp8_blocks("w", 1, 256, bytes, 128, 128, one); }), HasSubstr("expected 2 of scales, got 1"));
  EXPECT_THAT(error_of([&] { fp8_blocks("w", 2, 256, bytes, 128, 128, scales); }), HasSubstr("expected 512 of codes, got 256"));
  EXPECT_THAT(error_of([&] { nf4_blocks("w", 1, 96, bytes, scales); }), HasSubstr("whole groups of 64, got 96"));
  EXPECT_THAT(error_of([&] { nf4_blocks("w", 1, 128, bytes, scales); }), HasSubstr("expected 64 of bytes of codes, got 256"));
  EXPECT_THAT(error_of([&] { nf4_blocks("w", 1, 512, bytes, scales); }), HasSubstr("expected 8 of statistics, got 2"));
  EXPECT_THAT(error_of([&] { nf4_statistics("w", bytes, scales, scales, 256, 0); }), HasSubstr("expected 256 of values of the statistics' map, got 2"));
  EXPECT_THAT(error_of([&] { nf4_statistics("w", bytes, std::vector<float>(256), scales, 256, 0); }), HasSubstr("expected 1 of nested statistics, got 2"));
  EXPECT_THAT(error_of([&] { nf4_statistics("w", bytes, std::vector<float>(256), scales, 0, 0); }), HasSubstr("expected blocks of statistics, got blocks of 0"));
}

}  // namespace
}  // namespace graft
