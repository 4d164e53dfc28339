// Products with quantised weights, compiled for the CPU, against sums in double: every form and element type, both directions, splits, and the way through
// scratch bit for bit.
#include <cmath>
#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/quantized_product/quantized_product.cuh"
#include "kernels/quantized_product/quantized_product_plan.h"
#include "tests/emulator/quantized_blocks.h"
#include "tests/emulator/rows.h"

namespace graft::cuda {
namespace {

using emulator::BlockMatrix;
using emulator::Buffer;
using emulator::kIsFloat32;
using emulator::kRounding;
using emulator::kRowType;

QuantizedMatrix launched(const BlockMatrix& matrix) {
  return {matrix.form, static_cast<int64_t>(matrix.rows), static_cast<int64_t>(matrix.columns), matrix.blocks.data()};
}

template <typename Element>
void expect_decoded(TensorType form, size_t rows, size_t columns) {
  const BlockMatrix matrix(form, rows, columns, 3);
  Buffer<Element> values(rows * columns, from_float<Element>(NAN));
  ASSERT_EQ(launch(DequantizeMatrix{launched(matrix), kRowType<Element>, values.data()}, nullptr), nullptr);
  for (size_t i = 0; i < values.size(); ++i) {
    const auto expected = from_float<Element>(matrix.values[i]);
    ASSERT_EQ(std::memcmp(&values[i], &expected, sizeof expected), 0) << i << ": " << to_float(values[i]) << " instead of " << to_float(expected);
  }
}

struct Sizes {
  size_t num_rows = 17, rows = 70, columns = 0;   // columns 0: two tiles and a half, or two blocks
  int num_splits = 0;                             // 0: as the plan says
  size_t padding = 0;                             // columns of x and y that belong to others
  bool accumulate = false;
};

template <typename Element>
void expect_product(TensorType form, bool transposed, Sizes sizes) {
  const auto block = static_cast<size_t>(info(form).block_elements);
  if (sizes.columns == 0) sizes.columns = std::max<size_t>(160, 2 * block) / block * block;
  const BlockMatrix matrix(form, sizes.rows, sizes.columns, 5);
  const size_t inner = transposed ? sizes.rows : sizes.columns, outputs = transposed ? sizes.columns : sizes.rows;
  const size_t x_stride = inner + sizes.padding, y_stride = outputs + sizes.padding;
  Buffer<Element> x(sizes.num_rows * x_stride), y(sizes.num_rows * y_stride);
  emulator::fill_normal(x, 1);
  emulator::fill_normal(y, 2, 3);
  const auto before = emulator::doubles(y);
  QuantizedProduct product{launched(matrix), transposed, sizes.accumulate, kRowType<Element>, static_cast<int64_t>(sizes.num_rows), x.data() + sizes.padding,
                           static_cast<int64_t>(x_stride), y.data() + sizes.padding, static_cast<int64_t>(y_stride), 1, 1, nullptr};
  const auto plan = quantized_product_plan(product.num_rows, static_cast<int64_t>(outputs), static_cast<int64_t>(inner));
  const int tiles = static_cast<int>((inner + kQuantizedTile - 1) / kQuantizedTile);
  product.split = sizes.num_splits == 0 ? plan.split : (tiles + sizes.num_splits - 1) / sizes.num_splits;
  product.num_splits = sizes.num_splits == 0 ? plan.num_splits : (tiles + product.split - 1) / product.split;
  Buffer<float> partials(product.num_splits > 1 ? static_cast<size_t>(product.num_splits) * sizes.num_rows * outputs : 0, NAN);
  product.partials = partials.data();
  ASSERT_EQ(launch(product, nullptr), nullptr);
  for (size_t n = 0; n < sizes.num_rows; ++n) {
    for (size_t o = 0; o < y_stride; ++o) {
      const size_t at = n * y_stride + o;
      if (o < sizes.padding) {
        ASSERT_EQ(to_float(y[at]), before[at]) << "another's, row " << n << " column " << o;
        continue;
      }
      double sum = sizes.accumulate ? before[at] : 0, size = std::abs(sum);
      for (size_t k = 0; k < inner; ++k) {
        const size_t row = transposed ? k : o - sizes.padding, column = transposed ? o - sizes.padding : k;
        const double term = to_float(x[n * x_stride + sizes.padding + k]) * emulator::rounded<Element>(matrix.values[row * sizes.columns + column]);
        sum += term;
        size += std::abs(term);
      }
      ASSERT_NEAR(to_float(y[at]), sum, 1.01 * kRounding<Element> * std::abs(sum) + 4e-7 * size + 0x1p-25) << "row " << n << ", output " << o - sizes.padding;
    }
  }
}

template <typename Element>
void expect_both_ways(TensorType form, const Sizes& sizes) {
  expect_product<Element>(form, false, sizes);
  expect_product<Element>(form, true, sizes);
}

class QuantizedForms : public testing::TestWithParam<TensorType> {};
#define GRAFT_FORM(type, Block) TensorType::type,
constexpr TensorType kForms[] = {GRAFT_BLOCK_FORMS(GRAFT_FORM)};
#undef GRAFT_FORM
INSTANTIATE_TEST_SUITE_P(Forms, QuantizedForms, testing::ValuesIn(kForms), [](const auto& of) { return std::string(graft::info(of.param).name); });

TEST_P(QuantizedForms, AreDecodedAsOnTheCpuBitForBit) {
  const auto block = static_cast<size_t>(info(GetParam()).block_elements);
  expect_decoded<float>(GetParam(), 7, 2 * block);
  expect_decoded<Bfloat16>(GetParam(), 1, block);
  expect_decoded<Bfloat16>(GetParam(), 67, 512);   // more than a block of threads decodes
  expect_decoded<Float16>(GetParam(), 3, 3 * block);
  expect_decoded<Float16>(GetParam(), 0, block);
}

TEST_P(QuantizedForms, AreMultiplied) {
  expect_both_ways<Bfloat16>(GetParam(), {});
  expect_both_ways<Float16>(GetParam(), {});
  expect_both_ways<float>(GetParam(), {});
}

template <typename Element>
class QuantizedProducts : public testing::Test {};
TYPED_TEST_SUITE(QuantizedProducts, emulator::RowElements);

TYPED_TEST(QuantizedProducts, OfEverySize) {
  for (const size_t num_rows : {0, 1, 64, 65}) expect_both_ways<TypeParam>(TensorType::kQ4_0, {num_rows, 3, 32});
  expect_both_ways<TypeParam>(TensorType::kQ4_0, {2, 1, 32});
  expect_both_ways<TypeParam>(TensorType::kQ4_0, {2, 64, 64});
  expect_both_ways<TypeParam>(TensorType::kQ4_0, {2, 65, 96});
  expect_both_ways<TypeParam>(TensorType::kQ4_K, {3, 129, 256});
  expect_both_ways<TypeParam>(TensorType::kQ4_0, {2, 0, 64});
}

TYPED_TEST(QuantizedProducts, SplitAddedToAndBesideOthers) {
  for (const int num_splits : {1, 2, 3}) {
    for (const size_t padding : {0, 3, 8}) {
      expect_both_ways<TypeParam>(TensorType::kQ6_K, {5, 200, 256, num_splits, padding, padding != 8});
    }
  }
  expect_both_ways<TypeParam>(TensorType::kQ8_0, {70, 200, 256, 3, 0, true});
}

TEST(QuantizedProductErrors, FormsWithoutAKernelAreRefused) {
  Buffer<float> x(64), y(64);
  QuantizedProduct product{{TensorType::kBF16, 8, 8, x.data()}, false, false, RowType::kFloat32, 8, x.data(), 8, y.data(), 8, 1, 1, nullptr};
  EXPECT_STREQ(launch(product, nullptr), "no kernel multiplies this form");
  EXPECT_STREQ(launch(DequantizeMatrix{product.matrix, RowType::kFloat32, y.data()}, nullptr), "no kernel decodes this form");
  EXPECT_EQ(y[0], 0);
}

TEST(QuantizedProductPlan, FewRowsAreFusedAndSplitUntilBlocksAreMany) {
  const auto plan = [](int64_t rows, int64_t outputs, int64_t inner) { return quantized_product_plan(rows, outputs, inner); };
  EXPECT_TRUE(plan(1, 4096, 4096).fused);
  EXPECT_TRUE(plan(128, 4096, 4096).fused);
  EXPECT_FALSE(plan(129, 4096, 4096).fused);
  EXPECT_TRUE(plan(256, 1024, 1024).fused) << "a small weight";
  EXPECT_FALSE(plan(257, 1024, 1024).fused);
  EXPECT_FALSE(plan(256, 1024, 1025).fused);
  EXPECT_EQ(plan(1, 4096, 4096).num_splits, 8);        // 64 tiles of outputs, 512 blocks
  EXPECT_EQ(plan(64, 4096, 4096).num_splits, 4);       // no more traffic than codes have
  EXPECT_EQ(plan(1, 64, 4096).num_splits, 16);         // four tiles each
  EXPECT_EQ(plan(1, 151936, 4096).num_splits, 1);      // blocks enough
  EXPECT_EQ(plan(0, 64, 64).num_splits, 1);
  for (const int64_t inner : {0, 1, 64, 65, 576, 4097, 14336}) {
    for (const int64_t rows : {1, 17, 64, 200}) {
      for (const int64_t outputs : {1, 576, 4096}) {
        const auto some = plan(rows, outputs, inner);
        const int64_t tiles = (inner + kQuantizedTile - 1) / kQuantizedTile;
        EXPECT_GE(int64_t(some.num_splits) * some.split, tiles);
        EXPECT_TRUE(some.num_splits == 1 || int64_t(some.num_splits - 1) * some.split < tiles) << "no split is empty";
      }
    }
  }
}

}  // namespace
}  // namespace graft::cuda
