// All that device code may touch of the hardware, besides arithmetic: this file, shared.cuh and matrix.cuh. tests/emulator has files of these names with
// the same functions on the CPU, found first by its include path, so that the same .cu runs in CI without a GPU.
#pragma once
#include <cstdint>

#include <cuda_runtime.h>

#define GRAFT_DEVICE __device__ __forceinline__
// (threads of a block[, blocks that must fit a multiprocessor]). Without the second the compiler chooses, and may spill registers for one block more.
#define GRAFT_KERNEL(...) __global__ void __launch_bounds__(__VA_ARGS__)
#define GRAFT_UNROLL _Pragma("unroll")
#define GRAFT_PRAGMA(text) _Pragma(#text)
#define GRAFT_UNROLL_BY(count) GRAFT_PRAGMA(unroll count)
// The block's dynamic shared memory as a struct of SharedArrays; LAUNCH is given sizeof(Struct).
#define GRAFT_SHARED(Struct) (*reinterpret_cast<Struct*>(::graft::cuda::shared_memory()))
#define LAUNCH(kernel, blocks, threads, shared_bytes, stream, ...)                                                         \
  do {                                                                                                                     \
    if (::graft::cuda::allow_shared_memory(reinterpret_cast<const void*>(&kernel), (shared_bytes)))                        \
      kernel<<<static_cast<unsigned>(blocks), (threads), (shared_bytes), static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__); \
  } while (false)

namespace graft::cuda {

constexpr int kWarp = 32;

GRAFT_DEVICE unsigned char* shared_memory() {
  extern __shared__ __align__(128) unsigned char graft_shared_memory[];
  return graft_shared_memory;
}

GRAFT_DEVICE int thread_in_block() { return static_cast<int>(threadIdx.x); }
GRAFT_DEVICE int64_t block_in_grid() { return static_cast<int64_t>(blockIdx.x); }
GRAFT_DEVICE void block_barrier() { __syncthreads(); }
GRAFT_DEVICE void warp_barrier() { __syncwarp(); }

// Warp instructions: all 32 lanes call them. T: a type of 4 or 8 bytes.
// The value of the lane whose number differs in the bits of `mask`, the same in all lanes.
template <typename T>
GRAFT_DEVICE T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffU, value, mask);
}
// The value of lane `lane`.
template <typename T>
GRAFT_DEVICE T shuffle(T value, int lane) {
  return __shfl_sync(0xffffffffU, value, lane);
}
// Bit i: the value of lane i.
GRAFT_DEVICE uint32_t warp_ballot(bool value) { return __ballot_sync(0xffffffffU, value); }

// Global memory is touched by these, at addresses that are multiples of the type's alignment (elements.cuh: Pack moves several elements).
template <typename T>
GRAFT_DEVICE T load(const T* address) {
  return *address;
}
template <typename T>
GRAFT_DEVICE void store(T* address, const T& value) {
  *address = value;
}
// What was there before.
GRAFT_DEVICE int32_t atomic_add(int32_t* address, int32_t value) { return atomicAdd(address, value); }

GRAFT_DEVICE uint32_t bits_of(float value) { return __float_as_uint(value); }
GRAFT_DEVICE float float_of(uint32_t bits) { return __uint_as_float(bits); }
// Bits of 16-bit floats, rounded to nearest even; pairs have the first in the low half.
GRAFT_DEVICE uint32_t bfloat16_pair(float first, float second) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}
GRAFT_DEVICE uint16_t bfloat16_bits(float value) { return static_cast<uint16_t>(bfloat16_pair(value, 0)); }
GRAFT_DEVICE uint32_t float16_pair(float first, float second) {
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}
GRAFT_DEVICE uint16_t float16_bits(float value) { return static_cast<uint16_t>(float16_pair(value, 0)); }
GRAFT_DEVICE float float_of_float16(uint16_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
GRAFT_DEVICE int lowest_bit(uint32_t bits) { return __ffs(static_cast<int>(bits)) - 1; }   // of bits that are not all zero
GRAFT_DEVICE int count_bits(uint32_t bits) { return __popc(bits); }
GRAFT_DEVICE float inverse_square_root(float value) { return rsqrtf(value); }
GRAFT_DEVICE float square_root(float value) { return sqrtf(value); }
GRAFT_DEVICE double square_root(double value) { return sqrt(value); }
// a / b to two units in the last place, in three instructions; 0 where |b| is above 2^126.
GRAFT_DEVICE float fast_quotient(float a, float b) { return __fdividef(a, b); }
// 0 where the result would be subnormal.
GRAFT_DEVICE float power_of_two(float value) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
  return result;
}
GRAFT_DEVICE float greater(float a, float b) { return fmaxf(a, b); }   // one instruction; the other where one is NaN
GRAFT_DEVICE float logarithm(float value) { return logf(value); }
GRAFT_DEVICE float fused_multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
GRAFT_DEVICE float rounded_product(float a, float b) { return __fmul_rn(a, b); }   // never fused with what is added to it
GRAFT_DEVICE float infinity() { return __int_as_float(0x7f800000); }

// More than 48 KiB a block must be asked for, once a kernel. False: the driver refused, launch_error() says why.
inline bool allow_shared_memory(const void* kernel, size_t bytes) {
  return bytes <= (48U << 10) || cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)) == cudaSuccess;
}

// Null, or why the last launch failed.
inline const char* launch_error() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace graft::cuda
