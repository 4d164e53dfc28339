// float16 and bfloat16 bit patterns to and from float32, in integer arithmetic without branches on the common path: the
// same bits on every machine, whatever the denormal mode, and simple enough for the compiler to vectorise.
#pragma once
#include <bit>
#include <cstdint>

namespace graft {

inline float half_to_float(uint16_t half) {
  constexpr uint32_t kRebias = 112u << 23;  // exponent bias 15 -> 127
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fff) << 13;
  const uint32_t exponent = magnitude & 0x0f800000;
  const uint32_t normal = magnitude + kRebias;
  // Zero and subnormals: give them the implicit bit of 2^-14, then take it away again, exactly.
  const uint32_t small = std::bit_cast<uint32_t>(std::bit_cast<float>(normal + (1u << 23)) - 0x1p-14f);
  const uint32_t large = normal + kRebias;  // infinity and NaN
  const uint32_t bits = exponent == 0 ? small : exponent == 0x0f800000 ? large : normal;
  return std::bit_cast<float>(bits | sign);
}

// Round to nearest even; beyond 65504 (from 65520 on) infinity; NaN stays NaN.
inline uint16_t float_to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
  if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);
  if (magnitude < 0x38800000) {  // below 2^-14: 0.5 has the subnormals' spacing 2^-24 as its last bit, so the sum rounds
    const float sum = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(sum) - 0x3f000000));
  }
  const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
  return static_cast<uint16_t>(sign | (rounded - (112u << 23)) >> 13);
}

inline float bf16_to_float(uint16_t bf16) { return std::bit_cast<float>(static_cast<uint32_t>(bf16) << 16); }

// Round to nearest even; NaN stays NaN (quiet).
inline uint16_t float_to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const uint32_t quiet_nan = bits >> 16 | 0x40;
  return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? quiet_nan : rounded);
}

}  // namespace graft
