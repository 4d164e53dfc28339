#include "kernels/frozen_product/frozen_product.h"

#include <random>

#include <ATen/Parallel.h>

#include "kernels/quantized/small_floats.h"
#include "tests/kernels/torch/operators.h"
#include "tests/kernels/torch/quantized_weights.h"

namespace graft {
namespace {

using testing::random_tensor;

FrozenWeight random_weight(TensorType type, int64_t rows, int64_t columns, uint64_t seed) {
  if (info(type).quantized) return testing::quantized_weight(type, rows, columns, seed);
  auto bytes = std::make_shared<std::vector<std::byte>>();
  std::mt19937 random(static_cast<uint32_t>(seed));
  std::normal_distribution<float> normal;
  const auto put = [&](const auto& value) {
    const auto* data = reinterpret_cast<const std::byte*>(&value);
    bytes->insert(bytes->end(), data, data + sizeof value);
  };
  for (int64_t i = 0; i < rows * columns; ++i) {
    const float value = normal(random);
    if (type == TensorType::kF32) put(value);
    else put(type == TensorType::kBF16 ? float_to_bf16(value) : float_to_half(value));
  }
  return FrozenWeight(type, rows, columns, bytes->data(), bytes);
}

struct ProductCase {
  TensorType type;
  int64_t inputs;
  std::vector<int64_t> outputs, ranks;   // one each a part; rank 0: no adapter
};

void PrintTo(const ProductCase& c, std::ostream* out) { *out << info(c.type).name << " of " << c.inputs << " columns, " << c.outputs.size() << " parts"; }

class FrozenProduct : public ::testing::TestWithParam<ProductCase> {
 protected:
  void SetUp() override {
    int64_t rows = 0, total_rank = 0;
    for (const auto rank : GetParam().ranks) total_rank += rank;
    for (const auto count : GetParam().outputs) rows += count;
    matrix_ = at::zeros({rows, GetParam().inputs + total_rank});
    int64_t row = 0, rank_column = GetParam().inputs;
    for (size_t i = 0; i < GetParam().outputs.size(); ++i) {
      const int64_t count = GetParam().outputs[i], rank = GetParam().ranks[i];
      weights_.push_back(std::make_unique<FrozenWeight>(random_weight(GetParam().type, count, GetParam().inputs, i + 1)));
      auto decoded = at::empty({count, GetParam().inputs});
      weights_.back()->decode_rows(0, count, decoded.data_ptr<float>(), GetParam().inputs);
      factors_.push_back(random_tensor({count, rank}, 100 + i));
      matrix_.slice(0, row, row + count).slice(1, 0, GetParam().inputs).copy_(decoded);
      matrix_.slice(0, row, row + count).slice(1, rank_column, rank_column + rank).copy_(factors_.back());
      parts_.push_back({weights_.back().get(), rank > 0 ? factors_.back().const_data_ptr<float>() : nullptr, rank});
      row += count;
      rank_column += rank;
    }
  }
  void TearDown() override { at::set_num_threads(2); }

  at::Tensor forward(const at::Tensor& p) {
    auto y = at::full({p.size(0), matrix_.size(0)}, NAN);
    frozen_product(p.size(0), p.const_data_ptr<float>(), p.stride(0), parts_, y.data_ptr<float>(), y.size(1));
    return y;
  }
  at::Tensor backward(const at::Tensor& dy) {
    auto dp = at::full({dy.size(0), matrix_.size(1)}, NAN);
    frozen_product_backward(dy.size(0), dy.const_data_ptr<float>(), dy.stride(0), parts_, dp.data_ptr<float>(), dp.size(1));
    return dp;
  }

  std::vector<std::unique_ptr<FrozenWeight>> weights_;
  std::vector<at::Tensor> factors_;
  std::vector<FrozenPart> parts_;
  at::Tensor matrix_;   // M
};

TEST_P(FrozenProduct, EqualsTheFormulaInDouble) {
  for (const int64_t rows : {1, 5, 6, 61}) {
    const auto p = random_tensor({rows, matrix_.size(1)}, 7), dy = random_tensor({rows, matrix_.size(0)}, 8);
    EXPECT_LT(relative_error(forward(p), at::matmul(p.to(at::kDouble), matrix_.to(at::kDouble).t())), 2e-6) << rows;
    EXPECT_LT(relative_error(backward(dy), at::matmul(dy.to(at::kDouble), matrix_.to(at::kDouble))), 2e-6) << rows;
  }
}

at::Tensor rounded(const at::Tensor& x) { return x.to(at::kBFloat16); }
const uint16_t* bits(const at::Tensor& bf16) { return static_cast<const uint16_t*>(bf16.const_data_ptr()); }

TEST_P(FrozenProduct, InBfloat16EqualsTheFormulaOnRoundedOperands) {
  const auto matrix = rounded(matrix_).to(at::kDouble);
  for (const int64_t rows : {1, 5, 6, 61}) {
    const auto p = rounded(random_tensor({rows, matrix_.size(1)}, 7)), dy = rounded(random_tensor({rows, matrix_.size(0)}, 8));
    auto y = at::full({rows, matrix_.size(0)}, NAN), dp = at::full({rows, matrix_.size(1)}, NAN);
    frozen_product(rows, bits(p), p.size(1), parts_, y.data_ptr<float>(), y.size(1));
    frozen_product_backward(rows, bits(dy), dy.size(1), parts_, dp.data_ptr<float>(), dp.size(1));
    EXPECT_LT(relative_error(y, at::matmul(p.to(at::kDouble), matrix.t())), 2e-6) << rows;
    EXPECT_LT(relative_error(dp, at::matmul(dy.to(at::kDouble), matrix)), 2e-6) << rows;
    at::set_num_threads(1);
    auto again = at::full_like(y, NAN), dp_again = at::full_like(dp, NAN);
    frozen_product(rows, bits(p), p.size(1), parts_, again.data_ptr<float>(), y.size(1));
    frozen_product_backward(rows, bits(dy), dy.size(1), parts_, dp_again.data_ptr<float>(), dp.size(1));
    EXPECT_TRUE(at::equal(again, y) && at::equal(dp_again, dp)) << "one thread gave other bits";
    at::set_num_threads(2);
  }
}

TEST(FrozenProductError, DoesNotGrowWithALongInnerDimension) {   // as long as a vocabulary: dy of the head's backward
  const auto weight = testing::frozen(random_tensor({49152, 32}, 1));
  const auto dy = random_tensor({3, 49152}, 2);
  auto decoded = at::empty({49152, 32});
  weight.decode_rows(0, 49152, decoded.data_ptr<float>(), 32);
  auto dp = at::empty({3, 32});
  const FrozenPart part{&weight};
  frozen_product_backward(3, dy.const_data_ptr<float>(), 49152, {&part, 1}, dp.data_ptr<float>(), 32);
  EXPECT_LT(relative_error(dp, at::matmul(dy.to(at::kDouble), decoded.to(at::kDouble))), 6e-7);
}

TEST_P(FrozenProduct, ARowsBitsDependNeitherOnItsNeighboursNorOnThreads) {
  const auto p = random_tensor({131, matrix_.size(1)}, 7), dy = random_tensor({131, matrix_.size(0)}, 8);
  at::set_num_threads(1);
  const auto y = forward(p), dp = backward(dy);
  for (const int threads : {2, 3, 7}) {
    at::set_num_threads(threads);
    EXPECT_TRUE(at::equal(forward(p), y)) << threads << " threads";
    EXPECT_TRUE(at::equal(backward(dy), dp)) << threads << " threads";
  }
  for (const int64_t first : {0, 3, 64, 130}) {
    EXPECT_TRUE(at::equal(forward(p.slice(0, first, first + 1)), y.slice(0, first, first + 1))) << "row " << first;
    EXPECT_TRUE(at::equal(backward(dy.slice(0, first, first + 1)), dp.slice(0, first, first + 1))) << "row " << first;
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, FrozenProduct,
                         ::testing::Values(ProductCase{TensorType::kF32, 37, {5}, {0}}, ProductCase{TensorType::kF32, 64, {64}, {16}},
                                           ProductCase{TensorType::kF32, 5, {3, 70}, {2, 3}}, ProductCase{TensorType::kBF16, 130, {33, 200, 7}, {4, 0, 9}},
                                           ProductCase{TensorType::kQ4_1, 288, {192, 64, 65}, {16, 16, 16}}, ProductCase{TensorType::kQ8_0, 96, {130}, {7}},
                                           ProductCase{TensorType::kQ4_K, 512, {100, 30}, {8, 1}}, ProductCase{TensorType::kQ6_K, 256, {4200}, {0}},
                                           ProductCase{TensorType::kF16, 4500, {17}, {8}}, ProductCase{TensorType::kBF16, 513, {4201}, {3}},
                                           ProductCase{TensorType::kIQ4_NL, 160, {70}, {5}}, ProductCase{TensorType::kIQ4_XS, 256, {70}, {5}}, ProductCase{TensorType::kMXFP4, 96, {33}, {0}}, ProductCase{TensorType::kNF4, 192, {70, 9}, {3, 2}},
                                           ProductCase{TensorType::kF8E4M3Scaled, 384, {40}, {8}}, ProductCase{TensorType::kI4_32, 96, {33}, {4}},
                                           ProductCase{TensorType::kI4_128Zero, 640, {33}, {4}}));

}  // namespace
}  // namespace graft
