// All that device code may touch of the hardware, besides arithmetic. tests/emulator has a file of this name with the same
// functions on CPU threads, found first by its include path, so that the same .cu runs in CI without a GPU.
#pragma once
#include <cstdint>

#include <cuda_runtime.h>

#define GRAFT_DEVICE __device__ __forceinline__
#define GRAFT_KERNEL(max_threads) __global__ void __launch_bounds__(max_threads)
// The block's dynamic shared memory as a struct; LAUNCH is given sizeof(Struct).
#define GRAFT_SHARED(Struct) (*reinterpret_cast<Struct*>(::graft::cuda::shared_memory()))
#define LAUNCH(kernel, blocks, threads, shared_bytes, stream, ...) \
  kernel<<<(blocks), (threads), (shared_bytes), static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)

namespace graft::cuda {

constexpr int kWarp = 32;

GRAFT_DEVICE unsigned char* shared_memory() {
  extern __shared__ __align__(128) unsigned char graft_shared_memory[];
  return graft_shared_memory;
}

GRAFT_DEVICE int thread_in_block() { return static_cast<int>(threadIdx.x); }
GRAFT_DEVICE int64_t block_in_grid() { return static_cast<int64_t>(blockIdx.x); }
GRAFT_DEVICE void block_barrier() { __syncthreads(); }
// The value of the lane whose number differs in the bits of `mask`. All 32 lanes call it.
GRAFT_DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
GRAFT_DEVICE uint32_t bits_of(float value) { return __float_as_uint(value); }
GRAFT_DEVICE float float_of(uint32_t bits) { return __uint_as_float(bits); }
GRAFT_DEVICE float inverse_square_root(float value) { return rsqrtf(value); }

// Null, or why the last launch failed.
inline const char* launch_error() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace graft::cuda
