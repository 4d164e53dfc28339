// Smooth functions that several operators have.
#pragma once
#include "kernels/cuda/elements.cuh"

namespace graft::cuda {

GRAFT_DEVICE float sigmoid(float x) { return fast_quotient(1.0F, 1.0F + power_of_two(-kLog2E * x)); }

// To 4e-7 of its value, without a branch: near 0, where 1 - 2 / (e^2x + 1) loses digits, its series (Abramowitz and Stegun, 4.5.64).
GRAFT_DEVICE float hyperbolic_tangent(float x) {
  const float square = x * x, size = x < 0 ? -x : x;
  const float near = x * (1 + square * (-1.0F / 3 + square * (2.0F / 15 + square * (-17.0F / 315 + square * (62.0F / 2835)))));
  const float far = 1 - fast_quotient(2.0F, power_of_two(2 * kLog2E * size) + 1);
  return size < 0.25F ? near : x < 0 ? -far : far;
}

// log(1 + e^x). Where e^x is small, log(sum) / (sum - 1) has the error of the rounded sum in both of its parts (Kahan).
GRAFT_DEVICE float softplus(float x) {
  if (x > 20) return x;
  const float term = power_of_two(kLog2E * x), sum = 1 + term;
  return sum == 1 ? term : term * (logarithm(sum) / (sum - 1));
}

}  // namespace graft::cuda
