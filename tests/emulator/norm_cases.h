// RMS norm and layer norm in plain loops in double, and a comparison of the kernels with them. Device layout, element types, residual and both orders of
// rounding are cases; so is every way in which a row is shared out.
#pragma once
#include <cmath>

#include "kernels/norm_rows/norm_rows.cuh"
#include "tests/emulator/rows.h"

namespace graft::emulator {

struct NormCase {
  int num_rows = 3, width = 0;
  bool residual = false, rounds_before_weight = false;
  bool sum_gradient = false;   // does anything else read the sum?
};

// Widths that take each branch of norm_shape, for packs of 4 (float32) or 8 elements: the last row of a shape, the first of the next, and odd ones.
inline std::vector<int> norm_widths(int pack) {
  return {1,          31,         pack,       33 * pack,  64 * pack,   65 * pack,   72 * pack + 1, 200 * pack,
          256 * pack, 257 * pack, 512 * pack, 513 * pack, 1024 * pack, 1025 * pack, 1700 * pack};
}

// `launch_forward`(NormForward, bias, mean) and `launch_backward`(NormBackward, mean) start the norm that has a mean or has none.
template <typename Element, typename Forward, typename Backward>
void check_norm(const NormCase& c, bool centred, const Forward& launch_forward, const Backward& launch_backward) {
  SCOPED_TRACE(testing::Message() << c.num_rows << " rows of " << c.width << (c.residual ? ", residual" : "")
                                  << (c.rounds_before_weight ? ", rounds before the weight" : ""));
  constexpr float kEpsilon = 1e-2F;
  const auto rows = static_cast<size_t>(c.num_rows), width = static_cast<size_t>(c.width), count = rows * width;
  Buffer<Element> x(count), residual(count), sum(count), y(count), gradient(count), sum_gradient(count), dx(count);
  Buffer<float> weight(width), bias(width), inverse(rows), mean(rows);
  fill_normal(x, 1, 0.7F);
  fill_normal(residual, 2);
  fill_normal(gradient, 3);
  fill_normal(sum_gradient, 4);
  fill_normal(weight, 5, 1, 0.5F);
  fill_normal(bias, 6);
  const auto type = kRowType<Element>;
  ASSERT_EQ(launch_forward(cuda::NormForward{x.data(), c.residual ? residual.data() : nullptr, c.residual ? sum.data() : nullptr, weight.data(), y.data(),
                                             inverse.data(), c.num_rows, c.width, kEpsilon, c.rounds_before_weight, type},
                           bias.data(), mean.data()),
            nullptr);
  const auto& normed = c.residual ? sum : x;
  ASSERT_EQ(launch_backward(cuda::NormBackward{gradient.data(), c.sum_gradient ? sum_gradient.data() : nullptr, normed.data(), weight.data(), inverse.data(),
                                               dx.data(), c.num_rows, c.width, type},
                            mean.data()),
            nullptr);

  std::vector<double> expected_y(count), expected_dx(count);
  if (c.residual) {
    std::vector<double> both(count);
    for (size_t i = 0; i < count; ++i) both[i] = rounded<Element>(double(cuda::to_float(x[i])) + cuda::to_float(residual[i]));
    expect_rows(sum, both, 0, "sum");
  }
  const auto values = doubles(normed), g = doubles(gradient), further = doubles(sum_gradient);
  for (size_t n = 0; n < rows; ++n) {
    const double* row = values.data() + n * width;
    double middle = 0, squares = 0, along_normed = 0, along_one = 0;
    for (size_t i = 0; centred && i < width; ++i) middle += row[i] / c.width;
    for (size_t i = 0; i < width; ++i) squares += (row[i] - middle) * (row[i] - middle);
    const double r = 1 / std::sqrt(squares / c.width + kEpsilon);
    ASSERT_NEAR(inverse[n], r, 2e-6 * r);
    ASSERT_NEAR(centred ? mean[n] : 0, middle, 1e-6);
    for (size_t i = 0; i < width; ++i) {
      const double h = g[n * width + i] * weight[i];
      along_normed += h * (row[i] - middle) * r / c.width;
      along_one += centred ? h / c.width : 0;
    }
    for (size_t i = 0; i < width; ++i) {
      const double value = (row[i] - middle) * r, h = g[n * width + i] * weight[i];
      expected_y[n * width + i] = (c.rounds_before_weight ? rounded<Element>(value) : value) * weight[i] + (centred ? bias[i] : 0);
      expected_dx[n * width + i] = r * (h - along_one - value * along_normed) + (c.sum_gradient ? further[n * width + i] : 0);
    }
  }
  // Where a normed value lies between two bfloat16, float32's last bit decides which it becomes: half of their distance at most, by the weight.
  const double flips = c.rounds_before_weight ? 4 * 3 * 2 * kRounding<Element> : 0;
  expect_rows(y, expected_y, 1e-5 + flips, "y");
  expect_rows(dx, expected_dx, 2e-5, "dx");
}

// All widths, each with another mixture of the options.
template <typename Element, typename Forward, typename Backward>
void check_norms(bool centred, const Forward& launch_forward, const Backward& launch_backward) {
  const auto check = [&](const NormCase& c) { check_norm<Element>(c, centred, launch_forward, launch_backward); };
  for (const int width : norm_widths(cuda::kWidestPack<Element>)) {
    check({.width = width});
    check({.num_rows = 2, .width = width, .residual = true, .sum_gradient = true});
  }
  check({.num_rows = 9, .width = 64, .residual = true, .rounds_before_weight = true});
  check({.num_rows = 1, .width = 576, .rounds_before_weight = true, .sum_gradient = true});
  check({.num_rows = 0, .width = 64, .residual = true});
}

}  // namespace graft::emulator
