// exp and log for loops that the compiler vectorises: Cephes' polynomials, relative error below 2e-7, no branch, no libm call.
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

// Of normal positive numbers. Near 1 the error is relative to the result too.
GRAFT_INLINE_IN_CLONES float fast_log(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t from_root_half = bits - 0x3f3504f3u;   // of sqrt(1/2): fractions run from there to sqrt(2)
  const auto exponent = static_cast<float>(static_cast<int32_t>(from_root_half) >> 23);
  const float f = std::bit_cast<float>((from_root_half & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
  const float square = f * f;
  float p = 7.0376836292e-2f;
  p = p * f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  const float rest = p * f * square + exponent * -2.12194440e-4f - 0.5f * square;
  return f + rest + exponent * 0.693359375f;
}

}  // namespace graft
