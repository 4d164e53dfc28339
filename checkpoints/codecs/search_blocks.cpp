// Blocks of 32 by search: those of ggml's legacy forms where importance is given, IQ4_NL and MXFP4 always.
#include "checkpoints/codecs/pack_codes.h"
#include "checkpoints/codecs/quantize_blocks.h"
#include "checkpoints/codecs/scale_search.h"

namespace graft {
namespace {

constexpr int kCount = 32;
constexpr float kLargestHalf = 65504;

// The half-precision scale, its codes written.
template <typename Levels, int kSteps>
GRAFT_INLINE_IN_CLONES uint16_t encode_levels(const float* values, const float* importance, float step, uint8_t* codes) {
  float weights[kCount];
  weigh<kCount>(values, importance, weights);
  const uint16_t scale = float_to_half(search_scale<Levels, kCount, kSteps>(values, weights, step).scale);
  encode_at<Levels, kCount>(values, half_to_float(scale), codes);
  return scale;
}

template <int kMaxCode, typename Block>
GRAFT_INLINE_IN_CLONES void encode_from_minimum(const float* values, const float* importance, Block& block, uint8_t* codes) {
  float weights[kCount];
  weigh<kCount>(values, importance, weights);
  const AffineFit fit = search_affine<kMaxCode, kCount, 9>(values, weights, kLargestHalf);
  block.scale = float_to_half(fit.scale);
  block.minimum = float_to_half(std::clamp(fit.offset, -kLargestHalf, kLargestHalf));
  encode_affine_at<kMaxCode, kCount>(values, half_to_float(block.scale), half_to_float(block.minimum), codes);
}

}  // namespace

GRAFT_SIMD_CLONES void encode(const float* values, const float* importance, BlockQ4_0& block) {
  uint8_t codes[kCount];
  block.scale = encode_levels<EvenLevels<8>, 9>(values, importance, 0.1f, codes);
  pack_halves(codes, block.nibbles, nullptr);
}

GRAFT_SIMD_CLONES void encode(const float* values, const float* importance, BlockQ5_0& block) {
  uint8_t codes[kCount];
  uint32_t fifth_bits;
  block.scale = encode_levels<EvenLevels<16>, 9>(values, importance, 0.1f, codes);
  pack_halves(codes, block.nibbles, &fifth_bits);
  block.fifth_bits = fifth_bits;
}

GRAFT_SIMD_CLONES void encode(const float* values, const float* importance, BlockQ4_1& block) {
  uint8_t codes[kCount];
  encode_from_minimum<15>(values, importance, block, codes);
  pack_halves(codes, block.nibbles, nullptr);
}

GRAFT_SIMD_CLONES void encode(const float* values, const float* importance, BlockQ5_1& block) {
  uint8_t codes[kCount];
  uint32_t fifth_bits;
  encode_from_minimum<31>(values, importance, block, codes);
  pack_halves(codes, block.nibbles, &fifth_bits);
  block.fifth_bits = fifth_bits;
}

GRAFT_SIMD_CLONES void encode(const float* values, const float* importance, BlockIQ4_NL& block) {
  uint8_t codes[kCount];
  block.scale = encode_levels<NonLinearLevels, 7>(values, importance, 1, codes);
  pack_halves(codes, block.nibbles, nullptr);
}

// The exponent at which the largest value is at most 8 of the 6 that a code reaches, as OCP's specification has it, or the next one, where it is at most 4.
GRAFT_SIMD_CLONES void encode(const float* values, const float* importance, BlockMXFP4& block) {
  uint8_t codes[kCount] = {};
  float weights[kCount];
  weigh<kCount>(values, importance, weights);
  const float largest = std::fabs(extreme_of<kCount>(values));
  block.exponent = 0;
  if (largest > 0x1p-120f) {
    const int exponent = std::ilogb(largest) - 2;
    const float scale = std::ldexp(0.5f, exponent);   // half: levels are doubled
    const bool next = exponent < 125 && error_at<MicroscalingLevels, kCount>(values, weights, 2 * scale) < error_at<MicroscalingLevels, kCount>(values, weights, scale);
    encode_at<MicroscalingLevels, kCount>(values, next ? 2 * scale : scale, codes);
    block.exponent = static_cast<uint8_t>(exponent + 127 + next);
  }
  pack_halves(codes, block.nibbles, nullptr);
}

}  // namespace graft
