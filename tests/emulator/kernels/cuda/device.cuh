// kernels/cuda/device.cuh on the CPU: the same functions by the emulator (tests/emulator/block.h).
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

#include "tests/emulator/block.h"
#include "tests/emulator/memory.h"

#define GRAFT_DEVICE inline
#define GRAFT_KERNEL(...) void
#define GRAFT_UNROLL
#define GRAFT_UNROLL_BY(count)
#define GRAFT_SHARED(Struct) (*reinterpret_cast<Struct*>(::graft::emulator::shared_memory(sizeof(Struct))))
#define LAUNCH(kernel, blocks, threads, shared_bytes, stream, ...) \
  (static_cast<void>(stream), ::graft::emulator::launch(#kernel, (blocks), (threads), (shared_bytes), [&] { kernel(__VA_ARGS__); }))

namespace graft::cuda {

constexpr int kWarp = 32;

inline int thread_in_block() { return emulator::thread_in_block(); }
inline int64_t block_in_grid() { return emulator::block_in_grid(); }
inline void block_barrier(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { emulator::block_barrier(file, line); }
inline void warp_barrier() { emulator::warp_barrier(); }

template <typename T>
T shuffle_xor(T value, int mask) {
  struct Arguments {
    T value, result;
    int mask;
  } mine{value, value, mask};
  emulator::warp_instruction("shuffle_xor", &mine, [](void* const* lanes) {
    for (int lane = 0; lane < kWarp; ++lane) {
      auto& own = *static_cast<Arguments*>(lanes[lane]);
      if (own.mask < 0 || own.mask >= kWarp || own.mask != static_cast<Arguments*>(lanes[0])->mask) emulator::fail("shuffle_xor: expected one mask of 0 to 31 in all lanes");
      own.result = static_cast<Arguments*>(lanes[lane ^ own.mask])->value;
    }
  });
  return mine.result;
}

template <typename T>
T shuffle(T value, int lane) {
  struct Arguments {
    T value, result;
    int lane;
  } mine{value, value, lane};
  emulator::warp_instruction("shuffle", &mine, [](void* const* lanes) {
    for (int lane = 0; lane < kWarp; ++lane) {
      auto& own = *static_cast<Arguments*>(lanes[lane]);
      if (own.lane < 0 || own.lane >= kWarp) emulator::fail("shuffle: expected a lane of 0 to 31, got " + std::to_string(own.lane));
      own.result = static_cast<Arguments*>(lanes[own.lane])->value;
    }
  });
  return mine.result;
}

inline uint32_t warp_ballot(bool value) {
  struct Arguments {
    bool value;
    uint32_t result;
  } mine{value, 0};
  emulator::warp_instruction("warp_ballot", &mine, [](void* const* lanes) {
    uint32_t bits = 0;
    for (int lane = 0; lane < kWarp; ++lane) bits |= static_cast<uint32_t>(static_cast<Arguments*>(lanes[lane])->value) << lane;
    for (int lane = 0; lane < kWarp; ++lane) static_cast<Arguments*>(lanes[lane])->result = bits;
  });
  return mine.result;
}

template <typename T>
T load(const T* address) {
  emulator::check_global(address, sizeof(T), alignof(T), emulator::Access::kRead);
  return *address;
}
template <typename T>
void store(T* address, const T& value) {
  emulator::check_global(address, sizeof(T), alignof(T), emulator::Access::kWrite);
  *address = value;
}
inline int32_t atomic_add(int32_t* address, int32_t value) {
  emulator::check_global(address, sizeof(int32_t), alignof(int32_t), emulator::Access::kAtomic);
  const int32_t before = *address;
  *address += value;
  return before;
}

inline uint32_t bits_of(float value) { return std::bit_cast<uint32_t>(value); }
inline float float_of(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint16_t bfloat16_bits(float value) {
  const uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}
inline uint32_t bfloat16_pair(float first, float second) { return bfloat16_bits(first) | static_cast<uint32_t>(bfloat16_bits(second)) << 16; }
inline uint16_t float16_bits(float value) {
  const uint32_t sign = bits_of(value) >> 16 & 0x8000U;
  const float size = std::fabs(value);
  if (std::isnan(value)) return 0x7fff;
  if (size >= 65520.0F) return static_cast<uint16_t>(sign | 0x7c00U);
  if (size < 0x1p-14F) return static_cast<uint16_t>(sign | static_cast<uint32_t>(std::nearbyint(size * 0x1p24F)));   // subnormal, or the smallest normal
  const uint32_t bits = bits_of(size);
  return static_cast<uint16_t>(sign | ((bits + 0xfffU + ((bits >> 13) & 1U) - (112U << 23)) >> 13));
}
inline uint32_t float16_pair(float first, float second) { return float16_bits(first) | static_cast<uint32_t>(float16_bits(second)) << 16; }
inline float float_of_float16(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
  const float size = exponent == 31 ? (fraction ? NAN : HUGE_VALF) : std::ldexp(static_cast<float>(exponent ? fraction + 0x400 : fraction), (exponent ? exponent : 1) - 25);
  return bits & 0x8000 ? -size : size;
}
inline int lowest_bit(uint32_t bits) { return std::countr_zero(bits); }
inline int count_bits(uint32_t bits) { return std::popcount(bits); }
inline float inverse_square_root(float value) { return 1.0F / std::sqrt(value); }
inline float square_root(float value) { return std::sqrt(value); }
inline double square_root(double value) { return std::sqrt(value); }
inline float fast_quotient(float a, float b) { return std::abs(b) > 0x1p126F ? 0.0F : a / b; }
inline float power_of_two(float value) { return std::exp2(value); }
inline float greater(float a, float b) { return std::fmax(a, b); }
inline float logarithm(float value) { return std::log(value); }
inline float fused_multiply_add(float a, float b, float c) { return std::fma(a, b, c); }
inline float rounded_product(float a, float b) { return a * b; }
inline float infinity() { return HUGE_VALF; }

inline const char* launch_error() { return nullptr; }

}  // namespace graft::cuda
