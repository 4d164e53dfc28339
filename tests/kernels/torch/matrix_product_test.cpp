#include "kernels/matrix_product/matrix_product.h"

#include <cmath>
#include <cstring>

#include <ATen/Parallel.h>

#include "kernels/matrix_product/bf16_panel_amx.h"
#include "kernels/matrix_product/bf16_tile_product.h"
#include "kernels/matrix_product/tile_product.h"
#include "tests/kernels/torch/operators.h"

namespace graft {
namespace {

using testing::random_tensor;

at::Tensor tile_result(TileProduct product, int64_t rows, int64_t width, int64_t columns, bool accumulate) {
  constexpr int64_t kDepth = 77;
  const auto a = random_tensor({rows, kDepth + 3}, 1);
  auto storage = at::zeros({kDepth * width + 16});
  auto* panel = storage.data_ptr<float>();
  while (reinterpret_cast<uintptr_t>(panel) % 64 != 0) ++panel;
  const auto values = random_tensor({kDepth * width}, 2);
  std::memcpy(panel, values.const_data_ptr<float>(), kDepth * width * sizeof(float));
  auto c = random_tensor({rows, columns + 5}, 3);
  product(a.const_data_ptr<float>(), a.stride(0), rows, panel, width, kDepth, c.data_ptr<float>(), c.stride(0), columns, accumulate);
  return c;
}

TEST(TileProduct, AllVectorWidthsAgreeAndStayInsideTheirColumns) {
  for (int64_t rows = 1; rows <= kTileRows; ++rows) {
    for (const auto& [width, columns] : std::vector<std::pair<int64_t, int64_t>>{{16, 3}, {16, 16}, {32, 30}, {48, 48}, {64, 49}, {64, 64}}) {
      for (const bool accumulate : {false, true}) {
        const auto portable = tile_result(tile_product_portable(), rows, width, columns, accumulate);
        EXPECT_TRUE(at::equal(portable.slice(1, columns), random_tensor({rows, columns + 5}, 3).slice(1, columns))) << "wrote beyond its columns";
        for (const auto product : {tile_product_avx512(), tile_product_avx2()}) {
          if (!product) continue;
          EXPECT_LT(relative_error(tile_result(product, rows, width, columns, accumulate), portable), 1e-6) << rows << " x " << columns;
        }
        if (tile_product_avx512() && tile_product_avx2()) {
          EXPECT_TRUE(at::equal(tile_result(tile_product_avx512(), rows, width, columns, accumulate), tile_result(tile_product_avx2(), rows, width, columns, accumulate)));
        }
      }
    }
  }
}

TEST(TransposeWords, MovesEveryWord) {
  for (const int64_t columns : {1, 16, 37}) {
    const auto source = random_tensor({32, 40}, 1);
    auto destination = at::zeros({columns, 48});
    transpose_words(source.const_data_ptr<float>(), 40 * 4, 32, columns, destination.data_ptr<float>(), 48);
    EXPECT_TRUE(at::equal(destination.slice(1, 0, 32), source.slice(1, 0, columns).t())) << columns;
    EXPECT_TRUE(at::equal(destination.slice(1, 32), at::zeros({columns, 16})));
  }
}

// A packed panel of random bfloat16, aligned as products want it.
struct RandomPanel {
  at::Tensor values_DC, storage;
  uint32_t* words = nullptr;

  RandomPanel(int64_t depth, int64_t width) {
    const int64_t pairs = (depth + 1) / 2;
    const auto padded = random_tensor({2 * pairs, width}, 2).to(at::kBFloat16);
    if (depth % 2 != 0) padded[depth].zero_();
    values_DC = padded.slice(0, 0, depth);
    storage = at::zeros({pairs * width + 16}, at::kInt);
    words = reinterpret_cast<uint32_t*>(storage.data_ptr<int>());
    while (reinterpret_cast<uintptr_t>(words) % 64 != 0) ++words;
    const auto* source = static_cast<const uint16_t*>(padded.const_data_ptr());
    for (int64_t pair = 0; pair < pairs; ++pair) interleave(source + 2 * pair * width, source + (2 * pair + 1) * width, width, words + pair * width);
  }
};

at::Tensor bf16_tile_result(Bf16TileProduct product, int64_t rows, int64_t width, int64_t columns, int64_t depth, bool accumulate) {
  const auto a = random_tensor({rows, depth + 3}, 1).to(at::kBFloat16);
  const RandomPanel panel(depth, width);
  const auto& b = panel.values_DC;
  auto c = random_tensor({rows, columns + 5}, 3);
  const auto before = c.clone();
  product(static_cast<const uint16_t*>(a.const_data_ptr()), a.stride(0), rows, panel.words, width, depth, c.data_ptr<float>(), c.stride(0), columns, accumulate);
  auto expected = at::matmul(a.slice(1, 0, depth).to(at::kDouble), b.slice(1, 0, columns).to(at::kDouble));
  if (accumulate) expected = expected + before.slice(1, 0, columns).to(at::kDouble);
  EXPECT_LT(relative_error(c.slice(1, 0, columns), expected), 1e-6) << rows << " x " << columns << " x " << depth;
  EXPECT_TRUE(at::equal(c.slice(1, columns), before.slice(1, columns))) << "wrote beyond its columns";
  return c;
}

TEST(Bf16TileProduct, EqualsTheFormulaInDoubleAndThePortableTileToTheBit) {
  for (int64_t rows = 1; rows <= kTileRows; ++rows) {
    for (const auto& [width, columns] : std::vector<std::pair<int64_t, int64_t>>{{16, 3}, {32, 30}, {48, 48}, {64, 49}, {64, 64}}) {
      for (const int64_t depth : {1, 2, 77, 96}) {
        for (const bool accumulate : {false, true}) {
          const auto portable = bf16_tile_result(bf16_tile_product_portable(), rows, width, columns, depth, accumulate);
          if (!bf16_tile_product_avx512()) continue;
          EXPECT_TRUE(at::equal(bf16_tile_result(bf16_tile_product_avx512(), rows, width, columns, depth, accumulate), portable)) << rows << " x " << columns;
        }
      }
    }
  }
}

// As the instruction's description has it: even and odd products of a step in order, each rounded once, then both, then the sum.
float amx_element(const at::Tensor& a_RK, const at::Tensor& b_KC, int64_t row, int64_t column, float start) {
  const auto a = a_RK.accessor<float, 2>(), b = b_KC.accessor<float, 2>();
  for (int64_t k = 0; k < a_RK.size(1); k += kAmxDepth) {
    float even = 0, odd = 0;
    for (int64_t i = k; i < std::min(k + kAmxDepth, a_RK.size(1)); ++i) {
      auto& sum = i % 2 == 0 ? even : odd;
      sum = std::fma(a[row][i], b[i][column], sum);
    }
    start += even + odd;
  }
  return start;
}

TEST(Bf16PanelAmx, EqualsTheInstructionsDescriptionToTheBit) {
  const auto product = bf16_panel_product_amx();
  if (!product) return;   // another machine: bf16_tile_product is all there is
  for (const int64_t rows : {1, 16, 17, 32, 33, 70}) {
    for (const auto& [width, columns] : std::vector<std::pair<int64_t, int64_t>>{{16, 3}, {32, 30}, {48, 48}, {64, 49}, {64, 64}}) {
      for (const int64_t depth : {1, 16, 32, 77, 592}) {
        for (const bool accumulate : {false, true}) {
          const auto a = random_tensor({rows, depth + 4}, 1).to(at::kBFloat16);
          const RandomPanel panel(depth, width);
          auto c = random_tensor({rows, columns + 5}, 3);
          const auto before = c.clone(), wide_a = a.slice(1, 0, depth).to(at::kFloat), wide_b = panel.values_DC.to(at::kFloat);
          product(static_cast<const uint16_t*>(a.const_data_ptr()), a.stride(0), rows, panel.words, width, depth, c.data_ptr<float>(), c.stride(0), columns, accumulate);
          for (int64_t row = 0; row < rows; ++row) {
            for (int64_t column = 0; column < columns; ++column) {
              const float expected = amx_element(wide_a, wide_b, row, column, accumulate ? before[row][column].item<float>() : 0);
              ASSERT_EQ(c[row][column].item<float>(), expected) << rows << " x " << columns << " x " << depth << " at " << row << ", " << column;
            }
          }
          EXPECT_TRUE(at::equal(c.slice(1, columns), before.slice(1, columns))) << "wrote beyond its columns";
        }
      }
    }
  }
}

TEST(Bf16PanelAmx, AgreesWithVectors) {
  if (!bf16_panel_product_amx()) return;
  const auto a = random_tensor({40, 700}, 1).to(at::kBFloat16), b = random_tensor({700, 90}, 2).to(at::kBFloat16);
  const auto product = [&] {
    auto c = at::zeros({40, 90});
    matrix_product(40, 90, 700, {static_cast<const uint16_t*>(a.const_data_ptr()), 700, false}, {static_cast<const uint16_t*>(b.const_data_ptr()), 90, false}, c.data_ptr<float>(), 90);
    return c;
  };
  const auto tiles = product();
  set_amx(false);
  const auto vectors = product();
  set_amx(true);
  EXPECT_FALSE(at::equal(tiles, vectors));   // else one of the two did not run
  EXPECT_LT(relative_error(tiles, vectors), 1e-6);
}

TEST(Bf16MatrixProduct, EqualsTheFormulaInDoubleInEveryLayout) {
  for (const auto& [m, n, k] : std::vector<std::array<int64_t, 3>>{{1, 1, 1}, {7, 65, 33}, {16, 576, 700}, {130, 16, 64}, {33, 100, 1}, {5, 7, 0}, {48, 64, 256}}) {
    for (const bool a_transposed : {false, true}) {
      for (const bool b_transposed : {false, true}) {
        for (const bool accumulate : {false, true}) {
          const auto a = random_tensor(a_transposed ? std::vector<int64_t>{k, m + 2} : std::vector<int64_t>{m, k + 2}, 1).to(at::kBFloat16);
          const auto b = random_tensor(b_transposed ? std::vector<int64_t>{n, k + 1} : std::vector<int64_t>{k, n + 1}, 2).to(at::kBFloat16);
          auto c = random_tensor({m, n + 3}, 3);
          const auto before = c.clone();
          matrix_product(m, n, k, {static_cast<const uint16_t*>(a.const_data_ptr()), a.stride(0), a_transposed},
                         {static_cast<const uint16_t*>(b.const_data_ptr()), b.stride(0), b_transposed}, c.data_ptr<float>(), c.stride(0), accumulate);
          const auto left = a_transposed ? a.slice(1, 0, m).t() : a.slice(1, 0, k), right = b_transposed ? b.slice(1, 0, k).t() : b.slice(1, 0, n);
          auto expected = at::matmul(left.to(at::kDouble), right.to(at::kDouble));
          if (accumulate) expected = expected + before.slice(1, 0, n).to(at::kDouble);
          EXPECT_LT(relative_error(c.slice(1, 0, n), expected), 2e-6) << m << " x " << n << " x " << k << (a_transposed ? " a^T" : "") << (b_transposed ? " b^T" : "");
          EXPECT_TRUE(at::equal(c.slice(1, n), before.slice(1, n)));
        }
      }
    }
  }
}

}  // namespace
}  // namespace graft
