// Smooth functions that several operators have.
#pragma once
#include "kernels/cuda/elements.cuh"

namespace graft::cuda {

GRAFT_DEVICE float sigmoid(float x) { return fast_quotient(1.0F, 1.0F + power_of_two(-kLog2E * x)); }

// log(1 + e^x). Where e^x is small, log(sum) / (sum - 1) has the error of the rounded sum in both of its parts (Kahan).
GRAFT_DEVICE float softplus(float x) {
  if (x > 20) return x;
  const float term = power_of_two(kLog2E * x), sum = 1 + term;
  return sum == 1 ? term : term * (logarithm(sum) / (sum - 1));
}

}  // namespace graft::cuda
