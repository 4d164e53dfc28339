// exp for loops that the compiler vectorises: Cephes' polynomial, relative error below 2e-7, no branch, no libm call.
#pragma once
#include <bit>
#include <cstdint>

#include "kernels/quantized/simd_clones.h"

namespace graft {

GRAFT_INLINE_IN_CLONES float fast_exp(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float shifted = x * 1.44269504f + 12582912.0f;   // adding 1.5 * 2^23 rounds to an integer in the low mantissa bits
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return std::bit_cast<float>(std::bit_cast<int32_t>(p) + (static_cast<int32_t>(std::bit_cast<uint32_t>(shifted) << 23)));
}

}  // namespace graft
