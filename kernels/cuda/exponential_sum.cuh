// Sums of exponentials in one pass over their exponents: relative to the largest so far, scaled down when a larger one comes (Milakov and Gimelshein 2018,
// arXiv 1805.02867).
#pragma once
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/reduce.cuh"

namespace graft::cuda {

constexpr float kLowestFloat = -3.402823466e38F;

GRAFT_DEVICE float larger(float a, float b) { return a > b ? a : b; }
GRAFT_DEVICE float exponential(float x) { return power_of_two(x * kLog2E); }

// Exponents of -infinity add nothing.
struct ExponentialSum {
  float largest = kLowestFloat;
  float sum = 0;        // of exp(x - largest)
  float weighted = 0;   // of those times their weight

  template <int kCount>
  GRAFT_DEVICE void add(const float (&exponents)[kCount]) {
    raise(exponents);
    GRAFT_UNROLL
    for (int k = 0; k < kCount; ++k) sum += exponential(exponents[k] - largest);
  }
  template <int kCount>
  GRAFT_DEVICE void add(const float (&exponents)[kCount], const float (&weights)[kCount]) {
    raise(exponents);
    GRAFT_UNROLL
    for (int k = 0; k < kCount; ++k) {
      const float term = exponential(exponents[k] - largest);
      sum += term;
      weighted += term > 0 ? term * weights[k] : 0.0F;   // a weight may be infinite where there is no term
    }
  }
  GRAFT_DEVICE float log() const { return sum == 0 ? -infinity() : largest + logarithm(sum); }

 private:
  template <int kCount>
  GRAFT_DEVICE void raise(const float (&exponents)[kCount]) {
    float most = largest;
    GRAFT_UNROLL
    for (int k = 0; k < kCount; ++k) most = larger(most, exponents[k]);
    if (most > largest) {
      const float factor = exponential(largest - most);
      sum *= factor;
      weighted *= factor;
      largest = most;
    }
  }
};

template <int kThreads>
struct ExponentialSumMemory {
  BlockMaximumMemory<kThreads> largest;
  BlockSumMemory<kThreads> sum, weighted;
};

// Of all threads' sums, the same bits in every thread. A second call needs other memory, or a barrier between.
template <int kThreads>
GRAFT_DEVICE ExponentialSum block_sum(const ExponentialSum& own, ExponentialSumMemory<kThreads>& memory) {
  ExponentialSum all;
  all.largest = block_maximum(own.largest, memory.largest);
  const float factor = exponential(own.largest - all.largest);
  all.sum = block_sum(own.sum * factor, memory.sum);
  all.weighted = block_sum(own.weighted * factor, memory.weighted);
  return all;
}

}  // namespace graft::cuda
