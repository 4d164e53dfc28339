// Blocks of 256 by search: Q4_K, Q5_K and Q6_K where importance is given, Q2_K, Q3_K and IQ4_XS always.
#include "checkpoints/codecs/pack_codes.h"
#include "checkpoints/codecs/quantize_blocks.h"
#include "checkpoints/codecs/super_blocks.h"

namespace graft {

GRAFT_SIMD_CLONES void encode(const float* values, const float* importance, BlockQ2_K& block) {
  AffineCodes<16> encoded;
  encode_affine<3, 16, 15, 9>(values, importance, encoded);
  block.scale = encoded.scale;
  block.minimum = encoded.minimum;
  for (int sub = 0; sub < 16; ++sub) block.scales[sub] = static_cast<uint8_t>(encoded.sub_scales[sub] | encoded.sub_minima[sub] << 4);
  pack_pairs(encoded.codes, 0, block.codes);
}

GRAFT_SIMD_CLONES void encode(const float* values, const float* importance, BlockQ3_K& block) {
  ScaledCodes<16> encoded;
  encode_scaled<EvenLevels<4>, 16, 9>(values, importance, 0.1f, -32, 31, encoded);
  block.scale = encoded.scale;
  std::fill_n(block.scales, 12, uint8_t{0});
  for (int sub = 0; sub < 16; ++sub) {
    const int scale = encoded.sub_scales[sub] + 32;
    block.scales[sub % 8] |= static_cast<uint8_t>((scale & 15) << sub / 8 * 4);
    block.scales[8 + sub % 4] |= static_cast<uint8_t>((scale >> 4) << sub / 4 * 2);
  }
  pack_pairs(encoded.codes, 0, block.codes);
  pack_single_bits(encoded.codes, 2, block.third_bits);
}

// Q4_K and Q5_K, which differ in their largest code.
template <int kMaxCode, typename Block>
GRAFT_INLINE_IN_CLONES void encode_eight_scales_and_minima(const float* values, const float* importance, Block& block) {
  AffineCodes<8> encoded;
  encode_affine<kMaxCode, 8, 63, 9>(values, importance, encoded);
  block.scale = encoded.scale;
  block.minimum = encoded.minimum;
  pack_scales_and_minima(encoded.sub_scales, encoded.sub_minima, block.scales);
  pack(encoded.codes, block);
}

GRAFT_SIMD_CLONES void encode(const float* values, const float* importance, BlockQ4_K& block) { encode_eight_scales_and_minima<15>(values, importance, block); }

GRAFT_SIMD_CLONES void encode(const float* values, const float* importance, BlockQ5_K& block) { encode_eight_scales_and_minima<31>(values, importance, block); }

GRAFT_SIMD_CLONES void encode(const float* values, const float* importance, BlockQ6_K& block) {
  ScaledCodes<16> encoded;
  encode_scaled<EvenLevels<32>, 16, 9>(values, importance, 0.1f, -128, 127, encoded);
  block.scale = encoded.scale;
  for (int sub = 0; sub < 16; ++sub) block.scales[sub] = static_cast<int8_t>(encoded.sub_scales[sub]);
  pack(encoded.codes, block);
}

GRAFT_SIMD_CLONES void encode(const float* values, const float* importance, BlockIQ4_XS& block) {
  ScaledCodes<8> encoded;
  encode_scaled<NonLinearLevels, 8, 7>(values, importance, 1, -32, 31, encoded);
  block.scale = encoded.scale;
  block.high_pairs = 0;
  std::fill_n(block.low_nibbles, 4, uint8_t{0});
  for (int sub = 0; sub < 8; ++sub) {
    const int scale = encoded.sub_scales[sub] + 32;
    block.low_nibbles[sub / 2] |= static_cast<uint8_t>((scale & 15) << sub % 2 * 4);
    block.high_pairs = static_cast<uint16_t>(block.high_pairs | (scale >> 4) << sub * 2);
    pack_halves(encoded.codes + 32 * sub, block.nibbles + 16 * sub, nullptr);
  }
}

}  // namespace graft
