// The .cu file of RMS norm, compiled for the CPU, against a double-precision reference: each template branch, odd widths.
#include <cmath>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cuda/elements.cuh"
#include "kernels/rms_norm/rms_norm.cuh"

namespace graft::cuda {
namespace {

constexpr float kEpsilon = 1e-3F;

template <typename Element>
RowType type_of();
template <>
RowType type_of<float>() {
  return RowType::kFloat32;
}
template <>
RowType type_of<Bfloat16>() {
  return RowType::kBfloat16;
}

template <typename Element>
std::vector<Element> random_row_values(size_t count, int seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<Element> values(count);
  for (auto& value : values) value = from_float<Element>(normal(random));
  return values;
}

template <typename Element>
void check(int num_rows, int width, double tolerance) {
  SCOPED_TRACE(testing::Message() << num_rows << " rows of " << width);
  const auto x = random_row_values<Element>(num_rows * width, 1), gradient = random_row_values<Element>(num_rows * width, 2);
  const auto weight = random_row_values<float>(width, 3);
  std::vector<Element> y(x.size()), dx(x.size());
  std::vector<float> inverse_rms(num_rows);
  ASSERT_EQ(launch(RmsNormForward{x.data(), weight.data(), y.data(), inverse_rms.data(), num_rows, width, kEpsilon, type_of<Element>()}, nullptr),
            nullptr);
  ASSERT_EQ(launch(RmsNormBackward{gradient.data(), x.data(), weight.data(), inverse_rms.data(), dx.data(), num_rows, width, type_of<Element>()},
                            nullptr),
            nullptr);
  for (int n = 0; n < num_rows; ++n) {
    double squares = 0, dot = 0;
    for (int c = 0; c < width; ++c) {
      const double value = to_float(x[n * width + c]);
      squares += value * value;
      dot += value * to_float(gradient[n * width + c]) * weight[c];
    }
    const double r = 1 / std::sqrt(squares / width + kEpsilon);
    EXPECT_NEAR(inverse_rms[n], r, 1e-6 * r);
    for (int c = 0; c < width; ++c) {
      const double value = to_float(x[n * width + c]), h = double(to_float(gradient[n * width + c])) * weight[c];
      const double expected_y = value * r * weight[c], expected_dx = r * (h - value * r * r * dot / width);
      ASSERT_NEAR(to_float(y[n * width + c]), expected_y, tolerance * (std::abs(expected_y) + 1e-2));
      ASSERT_NEAR(to_float(dx[n * width + c]), expected_dx, tolerance * (std::abs(expected_dx) + 1e-2));
    }
  }
}

TEST(RmsNormCuda, Float32) {
  for (const int width : {1, 31, 48, 576, 577, 2060}) check<float>(3, width, 2e-5);
}

TEST(RmsNormCuda, Bfloat16) {
  for (const int width : {4, 33, 576, 1025, 2064}) check<Bfloat16>(2, width, 5e-3);
}

TEST(RmsNormCuda, NoRows) { check<float>(0, 64, 0); }

TEST(RmsNormCuda, ThreadsOfARow) {
  EXPECT_EQ(rms_norm_threads(64), 32);
  EXPECT_EQ(rms_norm_threads(513), 128);
  EXPECT_EQ(rms_norm_threads(16384), 512);
}

}  // namespace
}  // namespace graft::cuda
