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
  // Where columns count differently, the largest value may be one that counts little: scales that cut it are tried too.
  const auto fit = importance == nullptr ? search_scale<EvenLevels<8>, kGroup, 9>(values, weights, 0.1f) : search_scale<EvenLevels<8>, kGroup, 24>(values, weights, 0.2f);
  const float scale = storable(fit.scale);
  encode_at<EvenLevels<8>, kGroup>(values, scale, codes);
  block.scale = float_to_bf16(scale);
  pack_in_halves<kGroup>(codes, block.nibbles);
}

// The zero point is one of the codes: for some scales, narrower than what the search finds where columns count differently, the two next to where the offset would
// be, each with the scale that fits it best.
template <int kGroup>
GRAFT_INLINE_IN_CLONES void encode_group(const float* values, const float* importance, BlockI4Zero<kGroup>& block) {
  float weights[kGroup];
  weigh<kGroup>(values, importance, weights);
  const AffineFit fit = search_affine<15, kGroup, 9>(values, weights, 0);
  float best_scale = storable(fit.scale), best_zero = 8, least = INFINITY;
  const int num_widths = importance == nullptr ? 1 : 6;
  for (int width = 0; fit.scale > 0 && width < num_widths; ++width) {
    const float wanted = fit.scale * (1 - 0.08f * static_cast<float>(width)), offset = fit.offset + 7.5f * (fit.scale - wanted);
    for (int next = 0; next < 2; ++next) {
      const float zero = std::clamp(std::floor(-offset / wanted) + static_cast<float>(next), 0.0f, 15.0f);
      const auto level = [&](float value, float scale) { return rounded(std::clamp(value / scale, -zero, 15 - zero)); };
      float sums[2];
      sum_terms<kGroup>(sums, [&](int i, float* term) {
        const float own = level(values[i], wanted);
        term[0] = weights[i] * own * values[i];
        term[1] = weights[i] * own * own;
      });
      const float scale = storable(sums[1] > 0 && sums[0] > 0 ? sums[0] / sums[1] : wanted);
      float error[1];
      sum_terms<kGroup>(error, [&](int i, float* term) {
        const float difference = values[i] - scale * level(values[i], scale);
        term[0] = weights[i] * difference * difference;
      });
      if (!(error[0] < least)) continue;
      least = error[0];
      best_scale = scale;
      best_zero = zero;
    }
  }
  uint8_t codes[kGroup];
  for (int i = 0; i < kGroup; ++i) codes[i] = static_cast<uint8_t>(static_cast<int>(rounded(std::clamp(values[i] / best_scale, -best_zero, 15 - best_zero)) + best_zero));
  block.scale_and_zero = std::bit_cast<uint32_t>(best_scale) | static_cast<uint32_t>(best_zero);
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
