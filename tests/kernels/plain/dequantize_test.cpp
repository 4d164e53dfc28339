#include "kernels/quantized/dequantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/common/error.h"
#include "tests/support/files.h"

namespace graft {
namespace {

using ::testing::HasSubstr;

bool same_bits(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}

// gguf-py, numpy and torch are the references (dequantize_golden.py).
class DequantizeGolden : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new test::TemporaryFolder;
    test::run_python("tests/kernels/plain/dequantize_golden.py", {folder_->path().string()});
  }
  static void TearDownTestSuite() { delete folder_; }
  static inline test::TemporaryFolder* folder_ = nullptr;
};

TEST_F(DequantizeGolden, EveryTypeEqualsTheReferenceBitForBit) {
  for (const char* name :
       {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "MXFP4", "F16", "BF16", "F8_E4M3", "F8_E5M2", "IQ4_NL", "IQ4_XS",
        "NF4", "F8_E4M3_SCALED", "I8_SCALED", "NVFP4", "I4_32", "I4_64", "I4_128", "I4_32_ZERO", "I4_64_ZERO", "I4_128_ZERO"}) {
    SCOPED_TRACE(name);
    const TensorType type = tensor_type_from_name(name).value();
    const auto blocks = test::read_values<std::byte>(folder_->path() / (std::string(name) + ".blocks"));
    const auto expected = test::read_values<float>(folder_->path() / (std::string(name) + ".f32"));
    const auto n = static_cast<int64_t>(expected.size());
    ASSERT_EQ(n / info(type).block_elements * info(type).block_bytes, static_cast<int64_t>(blocks.size()));

    // One byte off: a GGUF file may place a tensor at any address.
    std::vector<std::byte> shifted(blocks.size() + 1);
    std::copy(blocks.begin(), blocks.end(), shifted.begin() + 1);
    std::vector<float> values(n);
    std::vector<uint16_t> rounded(n);
    dequantize(type, shifted.data() + 1, n, values.data());
    dequantize_bf16(type, shifted.data() + 1, n, rounded.data());
    for (int64_t i = 0; i < n; ++i) {
      ASSERT_TRUE(same_bits(values[i], expected[i])) << i << ": " << values[i] << " expected " << expected[i];
      if (!std::isnan(expected[i])) {
        ASSERT_EQ(rounded[i], float_to_bf16(expected[i])) << i;
      }
    }
  }
}

TEST(SmallFloats, HalfRoundsToNearestEvenAndSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = half_to_float(static_cast<uint16_t>(bits));
    if (!std::isnan(value)) {
      ASSERT_EQ(float_to_half(value), bits);
    }
  }
  EXPECT_EQ(half_to_float(0x3c00), 1.0f);
  EXPECT_EQ(half_to_float(0x0001), 0x1p-24f);
  EXPECT_EQ(half_to_float(0xfbff), -65504.0f);
  EXPECT_EQ(float_to_half(65519.9f), 0x7bff);
  EXPECT_EQ(float_to_half(65520.0f), 0x7c00);
  EXPECT_EQ(float_to_half(3e38f), 0x7c00);
  EXPECT_EQ(float_to_half(0x1p-25f), 0x0000);         // half of the smallest: to even
  EXPECT_EQ(float_to_half(0x1.8p-24f), 0x0002);       // one and a half of it: to even
  EXPECT_EQ(float_to_half(1.0f + 0x1p-11f), 0x3c00);  // ties to even, down and up
  EXPECT_EQ(float_to_half(1.0f + 0x3p-11f), 0x3c02);
  EXPECT_TRUE(std::isnan(half_to_float(float_to_half(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(SmallFloats, Bfloat16RoundsToNearestEvenAndKeepsNaN) {
  EXPECT_EQ(float_to_bf16(1.0f), 0x3f80);
  EXPECT_EQ(float_to_bf16(1.0f + 0x1p-8f), 0x3f80);
  EXPECT_EQ(float_to_bf16(1.0f + 0x3p-8f), 0x3f82);
  EXPECT_EQ(float_to_bf16(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_EQ(float_to_bf16(-std::numeric_limits<float>::infinity()), 0xff80);
  EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(std::bit_cast<float>(0x7f800001u)))));
}

TEST(Dequantize, RefusesCutBlocksAndIntegers) {
  std::byte source[64] = {};
  float destination[64];
  try {
    dequantize(TensorType::kQ4_1, source, 33, destination);
    FAIL();
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("whole number of Q4_1 blocks of 32 elements, got 33"));
  }
  EXPECT_THROW(dequantize(TensorType::kI32, source, 4, destination), UserError);
  EXPECT_NO_THROW(dequantize(TensorType::kF32, source, 0, destination));
}

TEST(TensorType, NamesAndGgmlNumbersRoundTrip) {
  for (int i = 0; i <= static_cast<int>(TensorType::kI4_128Zero); ++i) {
    const auto type = static_cast<TensorType>(i);
    EXPECT_EQ(tensor_type_from_name(info(type).name), type);
    if (ggml_number(type) >= 0) {
      EXPECT_EQ(tensor_type_from_ggml(ggml_number(type)), type);
    }
  }
  EXPECT_EQ(tensor_type_from_name("Q9_9"), std::nullopt);
  EXPECT_EQ(tensor_type_from_ggml(-1), std::nullopt);
  EXPECT_EQ(tensor_type_from_ggml(4), std::nullopt);  // Q4_2, removed from ggml
}

}  // namespace
}  // namespace graft
