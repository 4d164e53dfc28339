// Rows of random values for kernels that take them, and how near to double precision their results are.
#pragma once
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/row_type.cuh"
#include "tests/emulator/buffer.h"

namespace graft::emulator {

using RowElements = testing::Types<float, cuda::Bfloat16, cuda::Float16>;

template <typename Element>
constexpr bool kIsFloat32 = std::is_same_v<Element, float>;
template <typename Element>
constexpr bool kIsBfloat16 = std::is_same_v<Element, cuda::Bfloat16>;

template <typename Element>
constexpr cuda::RowType kRowType = kIsFloat32<Element> ? cuda::RowType::kFloat32 : kIsBfloat16<Element> ? cuda::RowType::kBfloat16 : cuda::RowType::kFloat16;

// Rounding to nearest moves a value by at most this share of it.
template <typename Element>
constexpr double kRounding = kIsFloat32<Element> ? 0x1p-24 : kIsBfloat16<Element> ? 0x1p-8 : 0x1p-11;

template <typename Element>
void fill_normal(Buffer<Element>& buffer, uint32_t seed, float mean = 0, float deviation = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(mean, deviation);
  for (size_t i = 0; i < buffer.size(); ++i) buffer[i] = cuda::from_float<Element>(normal(random));
}

template <typename Element>
double rounded(double value) {
  return cuda::to_float(cuda::from_float<Element>(static_cast<float>(value)));
}

template <typename Element>
std::vector<double> doubles(const Buffer<Element>& buffer) {
  std::vector<double> values(buffer.size());
  for (size_t i = 0; i < values.size(); ++i) values[i] = cuda::to_float(buffer[i]);
  return values;
}

// The results' own rounding, and `sums_error` of the size that their terms have.
template <typename Element>
void expect_rows(const Buffer<Element>& results, const std::vector<double>& expected, double sums_error, const char* what) {
  ASSERT_EQ(results.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(cuda::to_float(results[i]), expected[i], 1.01 * kRounding<Element> * std::abs(expected[i]) + sums_error) << what << " " << i;
  }
}

}  // namespace graft::emulator
