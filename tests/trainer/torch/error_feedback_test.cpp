#include "trainer/exports/error_feedback.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "checkpoints/codecs/quantize.h"
#include "checkpoints/tensor_source.h"
#include "kernels/quantized/dequantize.h"
#include "tests/support/error_of.h"
#include "tests/support/normal_values.h"
#include "tests/trainer/torch/generation_tiny_model.h"
#include "trainer/exports/input_products.h"

namespace graft {
namespace {

constexpr int64_t kRows = 24, kColumns = 256, kTokens = 700;

// Inputs whose columns go together, as activations do: a few directions with noise.
std::vector<double> products_of_inputs() {
  const auto directions = test::normal_values(8 * kColumns, 1, 1), weights = test::normal_values(kTokens * 8, 2, 1), noise = test::normal_values(kTokens * kColumns, 3, 0.3F);
  std::vector<double> products(kColumns * kColumns), x(kColumns);
  for (int64_t token = 0; token < kTokens; ++token) {
    for (int64_t c = 0; c < kColumns; ++c) {
      x[static_cast<size_t>(c)] = noise[static_cast<size_t>(token * kColumns + c)];
      for (int64_t d = 0; d < 8; ++d) x[static_cast<size_t>(c)] += weights[static_cast<size_t>(token * 8 + d)] * directions[static_cast<size_t>(d * kColumns + c)];
    }
    for (int64_t a = 0; a < kColumns; ++a) {
      for (int64_t b = 0; b < kColumns; ++b) products[static_cast<size_t>(a * kColumns + b)] += x[static_cast<size_t>(a)] * x[static_cast<size_t>(b)];
    }
  }
  return products;
}

// |(W - W^) X|^2.
double output_error(const std::vector<float>& weights, const std::vector<float>& rounded, const std::vector<double>& products) {
  double sum = 0;
  for (int64_t row = 0; row < kRows; ++row) {
    const auto error = [&](int64_t c) { return static_cast<double>(weights[static_cast<size_t>(row * kColumns + c)]) - rounded[static_cast<size_t>(row * kColumns + c)]; };
    for (int64_t a = 0; a < kColumns; ++a) {
      for (int64_t b = 0; b < kColumns; ++b) sum += error(a) * products[static_cast<size_t>(a * kColumns + b)] * error(b);
    }
  }
  return sum;
}

std::vector<float> decoded(TensorType type, const std::vector<std::byte>& blocks) {
  std::vector<float> values(kRows * kColumns);
  dequantize(type, blocks.data(), kRows * kColumns, values.data());
  return values;
}

std::vector<std::byte> with_feedback(TensorType type, const FeedbackFactor& factor, std::vector<float> values, std::vector<float>* last = nullptr) {
  std::vector<std::byte> blocks(static_cast<size_t>(bytes_of(type, std::vector<int64_t>{kRows, kColumns}).value()));
  const auto quantizer = [&](const float* of_block, int64_t rows, int64_t columns, std::span<const float> importance, std::byte* to) { quantize(type, of_block, rows, columns, to, importance); };
  quantize_with_feedback(type, factor, values.data(), kRows, quantizer, blocks.data());
  if (last) *last = values;
  return blocks;
}

TEST(ErrorFeedback, LowersTheErrorOfOutputsInEveryForm) {
  const auto products = products_of_inputs();
  const auto factor = feedback_factor(products, kColumns);
  const auto weights = test::normal_values(kRows * kColumns, 4, 0.05F);
  for (const auto type : {TensorType::kI4_32, TensorType::kI4_128, TensorType::kI4_64Zero, TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kIQ4_NL, TensorType::kNF4, TensorType::kMXFP4}) {
    std::vector<float> last;
    const auto fed = decoded(type, with_feedback(type, factor, weights, &last));
    for (size_t i = 0; i < fed.size(); ++i) ASSERT_NEAR(fed[i], last[i], 1e-6) << info(type).name << ": what is written is what the errors were answered for, " << i;
    std::vector<std::byte> plain(static_cast<size_t>(bytes_of(type, std::vector<int64_t>{kRows, kColumns}).value()));
    quantize(type, weights.data(), kRows, kColumns, plain.data());
    const double ratio = output_error(weights, fed, products) / output_error(weights, decoded(type, plain), products);
    std::cerr << info(type).name << ": " << ratio << " of the error of rounding each weight by itself\n";
    EXPECT_LT(ratio, info(type).block_elements == 32 || info(type).name.starts_with("I4") ? 0.35 : 0.6) << info(type).name;
  }
}

// The published recursion in double: each column rounded, the rest updated by the inverse, whose row and column then go.
TEST(ErrorFeedback, IsGptqColumnByColumn) {
  const auto products = products_of_inputs();
  const auto weights = test::normal_values(kRows * kColumns, 4, 0.05F);
  const auto type = TensorType::kI4_128Zero;
  const auto blocks = with_feedback(type, feedback_factor(products, kColumns), weights);
  const auto fed = decoded(type, blocks);
  std::vector<double> damped = products;
  double mean = 0;
  for (int64_t c = 0; c < kColumns; ++c) mean += products[static_cast<size_t>(c * kColumns + c)] / kColumns;
  for (int64_t c = 0; c < kColumns; ++c) damped[static_cast<size_t>(c * kColumns + c)] += 0.01 * mean;
  // Inverse by Gauss and Jordan.
  std::vector<double> inverse(damped.size());
  for (int64_t c = 0; c < kColumns; ++c) inverse[static_cast<size_t>(c * kColumns + c)] = 1;
  for (int64_t p = 0; p < kColumns; ++p) {
    const double pivot = damped[static_cast<size_t>(p * kColumns + p)];
    for (int64_t c = 0; c < kColumns; ++c) damped[static_cast<size_t>(p * kColumns + c)] /= pivot, inverse[static_cast<size_t>(p * kColumns + c)] /= pivot;
    for (int64_t r = 0; r < kColumns; ++r) {
      const double factor = r == p ? 0 : damped[static_cast<size_t>(r * kColumns + p)];
      for (int64_t c = 0; factor != 0 && c < kColumns; ++c) {
        damped[static_cast<size_t>(r * kColumns + c)] -= factor * damped[static_cast<size_t>(p * kColumns + c)];
        inverse[static_cast<size_t>(r * kColumns + c)] -= factor * inverse[static_cast<size_t>(p * kColumns + c)];
      }
    }
  }
  std::vector<double> values(weights.begin(), weights.end());
  int64_t different = 0;
  for (int64_t q = 0; q < kColumns; ++q) {
    const double own = inverse[static_cast<size_t>(q * kColumns + q)];
    for (int64_t row = 0; row < kRows; ++row) {
      // The scale and the zero point are those of the written block; the code is the nearest to the updated weight.
      uint32_t both;
      std::memcpy(&both, blocks.data() + (row * kColumns + q) / 128 * 68, sizeof both);
      const double scale = std::bit_cast<float>(both & 0xffffff00U), zero = both & 255;
      auto* own_row = values.data() + row * kColumns;
      const double rounded = (std::clamp(std::nearbyint(own_row[q] / scale) + zero, 0.0, 15.0) - zero) * scale;
      different += std::abs(rounded - fed[static_cast<size_t>(row * kColumns + q)]) > 1e-6;
      const double error = (own_row[q] - fed[static_cast<size_t>(row * kColumns + q)]) / own;
      for (int64_t c = q; c < kColumns; ++c) own_row[c] -= error * inverse[static_cast<size_t>(q * kColumns + c)];
    }
    std::vector<double> column(kColumns), line(kColumns);
    for (int64_t c = 0; c < kColumns; ++c) column[static_cast<size_t>(c)] = inverse[static_cast<size_t>(c * kColumns + q)], line[static_cast<size_t>(c)] = inverse[static_cast<size_t>(q * kColumns + c)];
    for (int64_t r = 0; r < kColumns; ++r) {
      for (int64_t c = 0; c < kColumns; ++c) inverse[static_cast<size_t>(r * kColumns + c)] -= column[static_cast<size_t>(r)] * line[static_cast<size_t>(c)] / own;
    }
  }
  EXPECT_LE(different, kRows * kColumns / 500) << "a weight halfway between two codes may fall to either";
}

TEST(ErrorFeedback, ColumnsThatNothingWentThroughAreRoundedByThemselves) {
  const std::vector<double> nothing(kColumns * kColumns);
  const auto weights = test::normal_values(kRows * kColumns, 4, 0.05F);
  const auto fed = decoded(TensorType::kIQ4_NL, with_feedback(TensorType::kIQ4_NL, feedback_factor(nothing, kColumns), weights));
  std::vector<std::byte> plain(static_cast<size_t>(bytes_of(TensorType::kIQ4_NL, std::vector<int64_t>{kRows, kColumns}).value()));
  quantize(TensorType::kIQ4_NL, weights.data(), kRows, kColumns, plain.data());
  EXPECT_EQ(fed, decoded(TensorType::kIQ4_NL, plain));
  EXPECT_THAT(test::error_of([&] { feedback_factor(nothing, kColumns - 1); }), testing::HasSubstr("expected products of 255 columns"));
}

// However many passes the budget makes of it, the sums are those of one pass, and those of the inputs themselves.
class InputProductsOf : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Families, InputProductsOf, testing::Values("llama", "qwen3_moe", "deepseek_v3"));

TEST_P(InputProductsOf, AnyBudgetGivesTheSame) {
  const test::TinyModel model(GetParam());
  int passes = 0;
  const auto batches = [&](const std::function<void(Batch)>& with) {
    ++passes;
    for (const int32_t first : {3, 7}) {
      Batch batch;
      batch.add_document({first, 1, 4, 1, 5, 9, 2, 6});
      with(std::move(batch));
    }
  };
  InputProducts whole(*model.decoder, batches, int64_t{1} << 30), small(*model.decoder, batches, 3 * 4 * 32 * 32);
  int64_t seen = 0;
  for (const auto& weight : model.decoder->weights()) {
    if (!is_linear_weight(*weight.rule)) continue;
    const auto expected = whole.of(*weight.rule), got = small.of(*weight.rule);
    ASSERT_EQ(got.size(), expected.size()) << weight.rule->ours;
    seen += !expected.empty();
    for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], expected[i]) << weight.rule->ours << " " << i;
    if (!expected.empty()) {
      EXPECT_EQ(static_cast<int64_t>(expected.size()), weight.rule->shape[1] * weight.rule->shape[1]);
    }
  }
  EXPECT_GT(seen, 10);
  EXPECT_GT(passes, 4);
}

}  // namespace
}  // namespace graft
