// Blocks of the hub's forms, which carry the scale of their group: INT4 by search, NF4 as bitsandbytes rounds it.
#include <cmath>
#include <utility>

#include "checkpoints/codecs/pack_codes.h"
#include "checkpoints/codecs/quantize_blocks.h"
#include "checkpoints/codecs/scale_search.h"
#include "kernels/quantized/block_decoders.h"

namespace graft {
namespace {

// A scale that both bfloat16 and float16 hold, so that every layout can store it; none is zero.
GRAFT_INLINE_IN_CLONES float storable(float scale) {
  const float rounded_scale = as_half(bf16_to_float(float_to_bf16(scale)));
  return rounded_scale != 0 ? rounded_scale : 0x1p-14f;
}

template <int kCount>
GRAFT_INLINE_IN_CLONES void pack_in_halves(const uint8_t* codes, uint8_t* nibbles) {
  for (int first = 0; first < kCount; first += 32) pack_halves(codes + first, nibbles + first / 2, nullptr);
}

template <int kGroup>
GRAFT_INLINE_IN_CLONES void encode_group(const float* values, const float* importance, BlockI4<kGroup>& block) {
  float weights[kGroup];
  uint8_t codes[kGroup];
  weigh<kGroup>(values, importance, weights);
  const float scale = storable(search_scale<EvenLevels<8>, kGroup, 9>(values, weights, 0.1f).scale);
  encode_at<EvenLevels<8>, kGroup>(values, scale, codes);
  block.scale = float_to_bf16(scale);
  pack_in_halves<kGroup>(codes, block.nibbles);
}

// The zero point is one of the codes, so that the offset that the search finds is rounded to a whole number of scales; then the scale is fitted once more.
template <int kGroup>
GRAFT_INLINE_IN_CLONES void encode_group(const float* values, const float* importance, BlockI4Zero<kGroup>& block) {
  float weights[kGroup];
  weigh<kGroup>(values, importance, weights);
  const AffineFit fit = search_affine<15, kGroup, 9>(values, weights, 0);
  const float zero = fit.scale > 0 ? rounded(std::clamp(-fit.offset / fit.scale, 0.0f, 15.0f)) : 8.0f;
  const auto level = [&](float value, float scale) { return rounded(std::clamp(value / scale, -zero, 15 - zero)); };
  const auto error = [&](float scale) {
    float sums[1];
    sum_terms<kGroup>(sums, [&](int i, float* term) {
      const float difference = values[i] - scale * level(values[i], scale);
      term[0] = weights[i] * difference * difference;
    });
    return sums[0];
  };
  float scale = storable(fit.scale);
  for (int turn = 0; turn < 2; ++turn) {
    float sums[2];
    sum_terms<kGroup>(sums, [&](int i, float* term) {
      const float own = level(values[i], scale);
      term[0] = weights[i] * own * values[i];
      term[1] = weights[i] * own * own;
    });
    const float refitted = sums[1] > 0 && sums[0] > 0 ? storable(sums[0] / sums[1]) : scale;
    if (!(error(refitted) < error(scale))) break;
    scale = refitted;
  }
  uint8_t codes[kGroup];
  for (int i = 0; i < kGroup; ++i) codes[i] = static_cast<uint8_t>(static_cast<int>(level(values[i], scale) + zero));
  block.scale_and_zero = std::bit_cast<uint32_t>(scale) | static_cast<uint32_t>(zero);
  pack_in_halves<kGroup>(codes, block.nibbles);
}

// NF4's codes ascend with their values.
GRAFT_INLINE_IN_CLONES uint8_t nearest_normal_float(float value) {
  int code = 0;
  for (int i = 1; i < 16; ++i) code += value > (normal_float_4(i - 1) + normal_float_4(i)) / 2;
  return static_cast<uint8_t>(code);
}

}  // namespace

GRAFT_SIMD_CLONES void encode(const float* values, const float* importance, BlockI4<32>& block) { encode_group(values, importance, block); }
GRAFT_SIMD_CLONES void encode(const float* values, const float* importance, BlockI4<64>& block) { encode_group(values, importance, block); }
GRAFT_SIMD_CLONES void encode(const float* values, const float* importance, BlockI4<128>& block) { encode_group(values, importance, block); }
GRAFT_SIMD_CLONES void encode(const float* values, const float* importance, BlockI4Zero<32>& block) { encode_group(values, importance, block); }
GRAFT_SIMD_CLONES void encode(const float* values, const float* importance, BlockI4Zero<64>& block) { encode_group(values, importance, block); }
GRAFT_SIMD_CLONES void encode(const float* values, const float* importance, BlockI4Zero<128>& block) { encode_group(values, importance, block); }

GRAFT_SIMD_CLONES void encode(const float* values, BlockNF4& block) {
  constexpr int kCount = BlockNF4::kElements;
  float largest = 0;
  for (int i = 0; i < kCount; ++i) largest = std::max(largest, std::fabs(values[i]));
  block.scale = largest;
  const float inverse = largest > 0 ? 1 / largest : 0.0f;
  uint8_t codes[kCount];
  for (int i = 0; i < kCount; ++i) codes[i] = nearest_normal_float(values[i] * inverse);
  pack_in_halves<kCount>(codes, block.nibbles);
}

}  // namespace graft
