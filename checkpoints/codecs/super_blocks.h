// Blocks of 256 whose sub-blocks have small integer scales below one (or, with minima, two) half-precision numbers. Each sub-block is fitted by itself; the
// shared numbers are then fitted to what the sub-blocks want, and last, in turns that each lower the error, the integers and the shared numbers to each other.
#pragma once
#include "checkpoints/codecs/scale_search.h"

namespace graft {

constexpr int kSuperBlock = 256, kTurns = 2;

// w = scale * sub_scales[s] * level.
template <int kSubs>
struct ScaledCodes {
  uint16_t scale = 0;
  int sub_scales[kSubs] = {};
  uint8_t codes[kSuperBlock];
};

// The sub-block's integer scale: the one next to what it wants, or a neighbour.
template <typename Levels, int kCount>
GRAFT_INLINE_IN_CLONES int choose_sub_scale(const float* values, const float* weights, float scale, float wanted, int lowest, int highest, float& error) {
  const int middle = static_cast<int>(rounded(std::clamp(wanted / scale, static_cast<float>(lowest), static_cast<float>(highest))));
  int best = middle;
  error = error_at<Levels, kCount>(values, weights, scale * static_cast<float>(middle));
  for (const int other : {middle - 1, middle + 1}) {
    if (other < lowest || other > highest) continue;
    const float of_other = error_at<Levels, kCount>(values, weights, scale * static_cast<float>(other));
    if (!(of_other < error)) continue;
    error = of_other;
    best = other;
  }
  return best;
}

template <typename Levels, int kSubs, int kSteps>
GRAFT_INLINE_IN_CLONES void encode_scaled(const float* values, const float* importance, float step, int lowest, int highest, ScaledCodes<kSubs>& block) {
  constexpr int kCount = kSuperBlock / kSubs;
  float weights[kSuperBlock], wanted[kSubs], squares[kSubs];
  weigh<kSuperBlock>(values, importance, weights);
  for (int sub = 0; sub < kSubs; ++sub) {
    const ScaleFit fit = search_scale<Levels, kCount, kSteps>(values + kCount * sub, weights + kCount * sub, step);
    wanted[sub] = fit.scale;
    squares[sub] = fit.squares;
  }
  float scale = as_half(search_shared_scale<kSubs>(wanted, squares, static_cast<float>(lowest), static_cast<float>(highest), static_cast<float>(lowest)));
  float best_error = -1;
  for (int turn = 0; turn < kTurns && scale != 0; ++turn) {
    int sub_scales[kSubs];
    float error = 0, products = 0, of_squares = 0;
    for (int sub = 0; sub < kSubs; ++sub) {
      const float *own = values + kCount * sub, *own_weights = weights + kCount * sub;
      float of_sub;
      sub_scales[sub] = choose_sub_scale<Levels, kCount>(own, own_weights, scale, wanted[sub], lowest, highest, of_sub);
      error += of_sub;
      const auto integer = static_cast<float>(sub_scales[sub]);
      if (sub_scales[sub] == 0) continue;
      const ScaleFit fit = fit_levels<Levels, kCount>(own, own_weights, 1 / (scale * integer));
      products += integer * fit.squares * fit.scale;
      of_squares += integer * integer * fit.squares;
    }
    if (best_error >= 0 && !(error < best_error)) break;
    best_error = error;
    block.scale = float_to_half(scale);
    std::copy_n(sub_scales, kSubs, block.sub_scales);
    if (!(of_squares > 0)) break;
    scale = as_half(products / of_squares);
  }
  scale = half_to_float(block.scale);
  for (int sub = 0; sub < kSubs; ++sub) {
    encode_at<Levels, kCount>(values + kCount * sub, scale * static_cast<float>(block.sub_scales[sub]), block.codes + kCount * sub);
  }
}

// w = scale * sub_scales[s] * code - minimum * sub_minima[s].
template <int kSubs>
struct AffineCodes {
  uint16_t scale = 0, minimum = 0;
  int sub_scales[kSubs] = {}, sub_minima[kSubs] = {};
  uint8_t codes[kSuperBlock];
};

template <int kMaxCode, int kSubs, int kMaxInteger, int kSteps>
GRAFT_INLINE_IN_CLONES void encode_affine(const float* values, const float* importance, AffineCodes<kSubs>& block) {
  constexpr int kCount = kSuperBlock / kSubs;
  constexpr float kLargest = kMaxInteger;
  float weights[kSuperBlock], wanted_scales[kSubs], wanted_minima[kSubs], squares[kSubs], sums[kSubs];
  weigh<kSuperBlock>(values, importance, weights);
  for (int sub = 0; sub < kSubs; ++sub) {
    const AffineFit fit = search_affine<kMaxCode, kCount, kSteps>(values + kCount * sub, weights + kCount * sub, 0);
    wanted_scales[sub] = fit.scale;
    wanted_minima[sub] = -fit.offset;
    squares[sub] = fit.squares;
    float of_weights[1];
    sum_terms<kCount>(of_weights, [&](int i, float* term) { term[0] = weights[kCount * sub + i]; });
    sums[sub] = of_weights[0];
  }
  float scale = as_half(search_shared_scale<kSubs>(wanted_scales, squares, 0, kLargest, kLargest));
  float minimum = as_half(search_shared_scale<kSubs>(wanted_minima, sums, 0, kLargest, kLargest));
  float best_error = -1;
  for (int turn = 0; turn < kTurns; ++turn) {
    int sub_scales[kSubs], sub_minima[kSubs];
    float error = 0, code_squares = 0, crossed = 0, minimum_squares = 0, code_products = 0, minimum_products = 0;
    for (int sub = 0; sub < kSubs; ++sub) {
      const float *own = values + kCount * sub, *own_weights = weights + kCount * sub;
      const int middle_scale = scale > 0 ? static_cast<int>(rounded(std::min(wanted_scales[sub] / scale, kLargest))) : 0;
      const int middle_minimum = minimum > 0 ? static_cast<int>(rounded(std::min(wanted_minima[sub] / minimum, kLargest))) : 0;
      float best = -1;
      for (int of_scale = std::max(0, middle_scale - 1); of_scale <= std::min(kMaxInteger, middle_scale + 1); ++of_scale) {
        for (int of_minimum = std::max(0, middle_minimum - 1); of_minimum <= std::min(kMaxInteger, middle_minimum + 1); ++of_minimum) {
          const float here = affine_error_at<kMaxCode, kCount>(own, own_weights, scale * static_cast<float>(of_scale), -minimum * static_cast<float>(of_minimum));
          if (best >= 0 && !(here < best)) continue;
          best = here;
          sub_scales[sub] = of_scale;
          sub_minima[sub] = of_minimum;
        }
      }
      error += best;
      const auto by = static_cast<float>(sub_scales[sub]), less = static_cast<float>(sub_minima[sub]);
      const float sub_scale = scale * by, inverse = sub_scale > 0 ? 1 / sub_scale : 0.0f, offset = -minimum * less;
      float of_sub[5];
      sum_terms<kCount>(of_sub, [&](int i, float* term) {
        const float code = by * rounded(std::clamp(inverse * (own[i] - offset), 0.0f, static_cast<float>(kMaxCode))), weighted = own_weights[i] * code;
        term[0] = weighted * code;
        term[1] = weighted * less;
        term[2] = own_weights[i] * less * less;
        term[3] = weighted * own[i];
        term[4] = own_weights[i] * less * own[i];
      });
      code_squares += of_sub[0];
      crossed += of_sub[1];
      minimum_squares += of_sub[2];
      code_products += of_sub[3];
      minimum_products += of_sub[4];
    }
    if (best_error >= 0 && !(error < best_error)) break;
    best_error = error;
    block.scale = float_to_half(scale);
    block.minimum = float_to_half(minimum);
    std::copy_n(sub_scales, kSubs, block.sub_scales);
    std::copy_n(sub_minima, kSubs, block.sub_minima);
    // values ~ scale * code - minimum * less over the whole block.
    const float determinant = code_squares * minimum_squares - crossed * crossed;
    if (determinant > 0) {
      scale = as_half(std::max(0.0f, (code_products * minimum_squares - minimum_products * crossed) / determinant));
      minimum = as_half(std::max(0.0f, (code_products * crossed - minimum_products * code_squares) / determinant));
    } else if (code_squares > 0) {
      scale = as_half(std::max(0.0f, code_products / code_squares));
    }
  }
  scale = half_to_float(block.scale);
  minimum = half_to_float(block.minimum);
  for (int sub = 0; sub < kSubs; ++sub) {
    encode_affine_at<kMaxCode, kCount>(values + kCount * sub, scale * static_cast<float>(block.sub_scales[sub]), -minimum * static_cast<float>(block.sub_minima[sub]),
                                       block.codes + kCount * sub);
  }
}

}  // namespace graft
