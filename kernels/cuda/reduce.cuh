// Sums and maxima over a warp and a block in one fixed order: the same bits in every run, and in every thread of the block.
#pragma once
#include "kernels/cuda/shared.cuh"

namespace graft::cuda {

// T: float or double.
template <typename T>
GRAFT_DEVICE T warp_sum(T value) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}

template <int kThreads, typename T = float>
struct BlockSumMemory {
  SharedArray<T, kThreads / kWarp> of_warp;
};

// Every thread of the block calls it once; a second call needs other memory, or a barrier between.
template <int kThreads, typename T>
GRAFT_DEVICE T block_sum(T value, BlockSumMemory<kThreads, T>& memory) {
  const int thread = thread_in_block();
  value = warp_sum(value);
  if (kThreads == kWarp) return value;
  if (thread % kWarp == 0) memory.of_warp.write(thread / kWarp, value);
  block_barrier();
  T sum = 0;
  for (int warp = 0; warp < kThreads / kWarp; ++warp) sum += memory.of_warp.read(warp);
  return sum;
}

GRAFT_DEVICE float warp_maximum(float value) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    const float other = shuffle_xor(value, mask);
    value = other > value ? other : value;
  }
  return value;
}

template <int kThreads>
struct BlockMaximumMemory {
  SharedArray<float, kThreads / kWarp> of_warp;
};

template <int kThreads>
GRAFT_DEVICE float block_maximum(float value, BlockMaximumMemory<kThreads>& memory) {
  value = warp_maximum(value);
  if (kThreads == kWarp) return value;
  if (thread_in_block() % kWarp == 0) memory.of_warp.write(thread_in_block() / kWarp, value);
  block_barrier();
  for (int warp = 0; warp < kThreads / kWarp; ++warp) value = memory.of_warp.read(warp) > value ? memory.of_warp.read(warp) : value;
  return value;
}

}  // namespace graft::cuda
