// A block in host memory, at any alignment, as block_decoders.h reads it. Inlined into the clones of simd_clones.h.
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>

#include "kernels/quantized/block_decoders.h"
#include "kernels/quantized/small_floats.h"

namespace graft {

struct HostBlock {
  const uint8_t* bytes;

  GRAFT_BLOCK_FUNCTION uint32_t byte(int at) const { return bytes[at]; }
  template <int kOffset>
  GRAFT_BLOCK_FUNCTION float half() const {
    return half_to_float(number<kOffset, uint16_t>());
  }
  template <int kOffset>
  GRAFT_BLOCK_FUNCTION float bfloat16() const {
    return bf16_to_float(number<kOffset, uint16_t>());
  }
  template <int kOffset>
  GRAFT_BLOCK_FUNCTION float float32() const {
    return number<kOffset, float>();
  }
  template <int kOffset>
  GRAFT_BLOCK_FUNCTION uint32_t word() const {
    return number<kOffset, uint32_t>();
  }
  template <int, int kOffset>
  GRAFT_BLOCK_FUNCTION const uint8_t* run(int at) const {
    return bytes + kOffset + at;
  }
  GRAFT_BLOCK_FUNCTION static float float_of(uint32_t bits) { return std::bit_cast<float>(bits); }
  GRAFT_BLOCK_FUNCTION static uint32_t bits_of(float value) { return std::bit_cast<uint32_t>(value); }
  GRAFT_BLOCK_FUNCTION static float product(float a, float b) { return a * b; }   // built with -ffp-contract=off

 private:
  template <int kOffset, typename T>
  GRAFT_BLOCK_FUNCTION T number() const {
    T value;
    std::memcpy(&value, bytes + kOffset, sizeof value);
    return value;
  }
};

}  // namespace graft
