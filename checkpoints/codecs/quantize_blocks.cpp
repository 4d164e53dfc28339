// Blocks of 32 without importance. The order of the float operations is ggml's: its bytes are the test.
#include "checkpoints/codecs/quantize_blocks.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "checkpoints/codecs/pack_codes.h"
#include "kernels/quantized/small_floats.h"

namespace graft {
namespace {

// Zero also where the reciprocal overflows: such a scale is below every half-precision number and its block decodes to zero.
float reciprocal_or_zero(float value) { return std::fabs(value) > 0x1p-127f ? 1.0f / value : 0.0f; }

// The value of largest magnitude, with its sign; the first of equals.
float signed_extreme(const float* values, int count) {
  float magnitude = 0, extreme = 0;
  for (int i = 0; i < count; ++i) {
    if (std::fabs(values[i]) <= magnitude) continue;
    magnitude = std::fabs(values[i]);
    extreme = values[i];
  }
  return extreme;
}

// Codes 0 to 2 * half - 1 around `half`; the extreme of either sign becomes code 0, which wastes no code on +max.
uint16_t encode_symmetric(const float* values, int half, uint8_t codes[32]) {
  const float scale = signed_extreme(values, 32) / static_cast<float>(-half);
  const float inverse = reciprocal_or_zero(scale);
  const float centre = static_cast<float>(half) + 0.5f;
  for (int i = 0; i < 32; ++i)
    codes[i] = static_cast<uint8_t>(std::min(2 * half - 1, static_cast<int>(values[i] * inverse + centre)));
  return float_to_half(scale);
}

// Codes 0 to `max_code` from the block's minimum to its maximum.
void encode_asymmetric(const float* values, int max_code, uint8_t codes[32], uint16_t& scale, uint16_t& minimum) {
  const auto [low, high] = std::minmax_element(values, values + 32);
  const float step = (*high - *low) / static_cast<float>(max_code);
  const float inverse = reciprocal_or_zero(step);
  for (int i = 0; i < 32; ++i)
    codes[i] = static_cast<uint8_t>(std::min(max_code, static_cast<int>((values[i] - *low) * inverse + 0.5f)));
  scale = float_to_half(step);
  minimum = float_to_half(*low);
}

}  // namespace

void encode(const float* values, BlockQ4_0& block) {
  uint8_t codes[32];
  block.scale = encode_symmetric(values, 8, codes);
  pack_halves(codes, block.nibbles, nullptr);
}

void encode(const float* values, BlockQ5_0& block) {
  uint8_t codes[32];
  uint32_t fifth_bits;
  block.scale = encode_symmetric(values, 16, codes);
  pack_halves(codes, block.nibbles, &fifth_bits);
  block.fifth_bits = fifth_bits;
}

void encode(const float* values, BlockQ4_1& block) {
  uint8_t codes[32];
  uint16_t scale, minimum;
  encode_asymmetric(values, 15, codes, scale, minimum);
  block.scale = scale;
  block.minimum = minimum;
  pack_halves(codes, block.nibbles, nullptr);
}

void encode(const float* values, BlockQ5_1& block) {
  uint8_t codes[32];
  uint16_t scale, minimum;
  uint32_t fifth_bits;
  encode_asymmetric(values, 31, codes, scale, minimum);
  block.scale = scale;
  block.minimum = minimum;
  pack_halves(codes, block.nibbles, &fifth_bits);
  block.fifth_bits = fifth_bits;
}

void encode(const float* values, BlockQ8_0& block) {
  const float scale = std::fabs(signed_extreme(values, 32)) / 127.0f;
  const float inverse = reciprocal_or_zero(scale);
  block.scale = float_to_half(scale);
  for (int i = 0; i < 32; ++i) block.codes[i] = static_cast<int8_t>(std::round(values[i] * inverse));
}

}  // namespace graft
