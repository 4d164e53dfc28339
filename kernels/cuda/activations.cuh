// Smooth functions that several operators have.
#pragma once
#include "kernels/cuda/device.cuh"

namespace graft::cuda {

GRAFT_DEVICE float sigmoid(float x) {
  constexpr float kLog2E = 1.4426950409F;
  return fast_quotient(1.0F, 1.0F + power_of_two(-kLog2E * x));
}

// log(1 + e^x). Where e^x is small, log(sum) / (sum - 1) has the error of the rounded sum in both of its parts (Kahan).
GRAFT_DEVICE float softplus(float x) {
  if (x > 20) return x;
  const float term = power_of_two(1.4426950409F * x), sum = 1 + term;
  return sum == 1 ? term : term * (logarithm(sum) / (sum - 1));
}

}  // namespace graft::cuda
