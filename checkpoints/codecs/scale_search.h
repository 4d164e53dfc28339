// The search for scales that the encoders share: weighted least squares. Codes determine the best scale (one division), a scale determines the best codes
// (rounding), so a few scales around the one that spans the values are tried and the best one is polished until it stays.
//
// All of it is inlined into SIMD clones and sums in kLanes parts that do not depend on the instruction set: the same bits everywhere.
#pragma once
#include <cmath>

#include "checkpoints/codecs/levels.h"
#include "kernels/quantized/small_floats.h"

namespace graft {

constexpr int kLanes = 8;
constexpr float kSmallestValue = 1e-12f;  // blocks below it are zero: no form has a scale this small

struct Lanes {
  float parts[kLanes] = {};
  GRAFT_INLINE_IN_CLONES float sum() const {
    return ((parts[0] + parts[4]) + (parts[1] + parts[5])) + ((parts[2] + parts[6]) + (parts[3] + parts[7]));
  }
};

// sums[k] of term(i, k) over kCount values.
template <int kCount, int kSums, typename Term>
GRAFT_INLINE_IN_CLONES void sum_terms(float (&sums)[kSums], const Term& terms) {
  Lanes lanes[kSums];
  for (int first = 0; first < kCount; first += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      float of_value[kSums];
      terms(first + lane, of_value);
      for (int k = 0; k < kSums; ++k) lanes[k].parts[lane] += of_value[k];
    }
  }
  for (int k = 0; k < kSums; ++k) sums[k] = lanes[k].sum();
}

// Each value's weight in the error: its column's importance times sqrt(mean square + square), since errors of large weights cost more than the importance
// alone says. Importances count relative to the block's mean; a small part of it keeps columns that no row used from having no code at all.
template <int kCount>
GRAFT_INLINE_IN_CLONES void weigh(const float* values, const float* importance, float* weights) {
  float sums[2];
  sum_terms<kCount>(sums, [&](int i, float* term) {
    term[0] = values[i] * values[i];
    term[1] = importance == nullptr ? 0.0f : importance[i];
  });
  const float mean_square = sums[0] / kCount, mean_importance = sums[1] / kCount;
  const bool equal = !(mean_importance > 0);
  const float inverse = equal ? 0.0f : 1 / mean_importance;
  for (int i = 0; i < kCount; ++i) {
    const float relative = (equal ? 1.0f : importance[i] * inverse) + 1e-4f;
    weights[i] = relative * std::sqrt(mean_square + values[i] * values[i]);
  }
}

// The value of largest magnitude, with its sign.
template <int kCount>
GRAFT_INLINE_IN_CLONES float extreme_of(const float* values) {
  float low = values[0], high = values[0];
  for (int i = 1; i < kCount; ++i) {
    low = std::min(low, values[i]);
    high = std::max(high, values[i]);
  }
  return high > -low ? high : low;
}

// values ~ scale * level. `gain` is how far the weighted error lies below that of zeros, `squares` the weighted squares of the levels.
struct ScaleFit {
  float scale = 0, gain = 0, squares = 0;
};

// The best scale for the levels that `inverse` gives.
template <typename Levels, int kCount>
GRAFT_INLINE_IN_CLONES ScaleFit fit_levels(const float* values, const float* weights, float inverse) {
  float sums[2];
  sum_terms<kCount>(sums, [&](int i, float* term) {
    const float level = Levels::nearest(inverse * values[i]), weighted = weights[i] * level;
    term[0] = weighted * values[i];
    term[1] = weighted * level;
  });
  if (!(sums[1] > 0)) return {};
  const float scale = sums[0] / sums[1];
  return {scale, scale * sums[0], sums[1]};
}

// Tried: the extreme value at either end of the levels, or up to kSteps steps of `step` beside it.
template <typename Levels, int kCount, int kSteps>
GRAFT_INLINE_IN_CLONES ScaleFit search_scale(const float* values, const float* weights, float step) {
  ScaleFit best;
  const float extreme = extreme_of<kCount>(values);
  if (!(std::fabs(extreme) > kSmallestValue)) return best;
  for (const float end : {Levels::kLowest, Levels::kHighest}) {
    for (int i = -kSteps; i <= kSteps; ++i) {
      const ScaleFit fit = fit_levels<Levels, kCount>(values, weights, (end + step * static_cast<float>(i)) / extreme);
      if (fit.gain > best.gain) best = fit;
    }
  }
  for (int turn = 0; turn < 3 && best.scale != 0; ++turn) {
    const ScaleFit fit = fit_levels<Levels, kCount>(values, weights, 1 / best.scale);
    if (!(fit.gain > best.gain)) break;
    best = fit;
  }
  return best;
}

// The weighted error of the levels that are next to the values at this scale.
template <typename Levels, int kCount>
GRAFT_INLINE_IN_CLONES float error_at(const float* values, const float* weights, float scale) {
  const float inverse = scale != 0 ? 1 / scale : 0.0f;
  float sums[1];
  sum_terms<kCount>(sums, [&](int i, float* term) {
    const float difference = values[i] - scale * Levels::nearest(inverse * values[i]);
    term[0] = weights[i] * difference * difference;
  });
  return sums[0];
}

template <typename Levels, int kCount>
GRAFT_INLINE_IN_CLONES void encode_at(const float* values, float scale, uint8_t* codes) {
  const float inverse = scale != 0 ? 1 / scale : 0.0f;
  for (int i = 0; i < kCount; ++i) codes[i] = Levels::code(Levels::nearest(inverse * values[i]));
}

// values ~ scale * code + offset, codes 0 to kMaxCode.
struct AffineFit {
  float scale = 0, offset = 0, gain = 0, squares = 0;   // gain: below the error of a block that is `low` throughout
};

// The best scale and offset for the codes that `inverse` and `from` give; all of it relative to `low`, the smallest value, or sums of values far from zero
// would lose what differs among them. No offset above `highest` is taken.
template <int kMaxCode, int kCount>
GRAFT_INLINE_IN_CLONES AffineFit fit_codes(const float* values, const float* weights, float low, float highest, float inverse, float from) {
  float sums[5];
  sum_terms<kCount>(sums, [&](int i, float* term) {
    const float code = rounded(std::clamp(inverse * (values[i] - from), 0.0f, static_cast<float>(kMaxCode))), weighted = weights[i] * code;
    const float value = values[i] - low;
    term[0] = weights[i];
    term[1] = weights[i] * value;
    term[2] = weighted;
    term[3] = weighted * code;
    term[4] = weighted * value;
  });
  const auto [weight, of_values, of_codes, squares, products] = sums;
  const float determinant = weight * squares - of_codes * of_codes;
  if (!(squares > 0)) return {};
  // Codes that are (nearly) all one say nothing of the offset: it stays.
  float offset = determinant > 1e-5f * weight * squares ? (squares * of_values - of_codes * products) / determinant : from - low;
  offset = std::min(offset, highest - low);
  const float scale = (products - offset * of_codes) / squares;
  if (!(scale > 0)) return {};
  const float gain = 2 * (offset * of_values + scale * products - offset * scale * of_codes) - offset * offset * weight - scale * scale * squares;
  return {scale, low + offset, gain, squares};
}

// Tried: codes that span the values, or up to kSteps tenths of a code fewer or more.
template <int kMaxCode, int kCount, int kSteps>
GRAFT_INLINE_IN_CLONES AffineFit search_affine(const float* values, const float* weights, float highest) {
  float low = values[0], high = values[0];
  for (int i = 1; i < kCount; ++i) {
    low = std::min(low, values[i]);
    high = std::max(high, values[i]);
  }
  low = std::min(low, highest);
  AffineFit best{0, low};
  if (!(high - low > kSmallestValue)) return best;
  for (int step = -kSteps; step <= kSteps; ++step) {
    const AffineFit fit = fit_codes<kMaxCode, kCount>(values, weights, low, highest, (kMaxCode + 0.1f * static_cast<float>(step)) / (high - low), low);
    if (fit.gain > best.gain) best = fit;
  }
  for (int turn = 0; turn < 4 && best.scale > 0; ++turn) {
    const AffineFit fit = fit_codes<kMaxCode, kCount>(values, weights, low, highest, 1 / best.scale, best.offset);
    if (!(fit.gain > best.gain)) break;
    best = fit;
  }
  return best;
}

template <int kMaxCode, int kCount>
GRAFT_INLINE_IN_CLONES float affine_error_at(const float* values, const float* weights, float scale, float offset) {
  const float inverse = scale != 0 ? 1 / scale : 0.0f;
  float sums[1];
  sum_terms<kCount>(sums, [&](int i, float* term) {
    const float code = rounded(std::clamp(inverse * (values[i] - offset), 0.0f, static_cast<float>(kMaxCode)));
    const float difference = values[i] - offset - scale * code;
    term[0] = weights[i] * difference * difference;
  });
  return sums[0];
}

template <int kMaxCode, int kCount>
GRAFT_INLINE_IN_CLONES void encode_affine_at(const float* values, float scale, float offset, uint8_t* codes) {
  const float inverse = scale != 0 ? 1 / scale : 0.0f;
  for (int i = 0; i < kCount; ++i) codes[i] = static_cast<uint8_t>(static_cast<int>(rounded(std::clamp(inverse * (values[i] - offset), 0.0f, static_cast<float>(kMaxCode)))));
}

// Small integers below one scale: numbers[i] ~ scale * integer, integers between `lowest` and `highest`, errors weighted. The number of largest magnitude
// goes to `end`, or a little beside it.
template <int kCount>
GRAFT_INLINE_IN_CLONES float search_shared_scale(const float* numbers, const float* weights, float lowest, float highest, float end) {
  const float extreme = extreme_of<kCount>(numbers);
  if (!(std::fabs(extreme) > kSmallestValue)) return 0;
  float best_scale = 0, best_gain = 0;
  for (int step = -6; step <= 6; ++step) {
    const float inverse = (end + 0.15f * static_cast<float>(step)) / extreme;
    float products = 0, squares = 0;
    for (int i = 0; i < kCount; ++i) {
      const float integer = rounded(std::clamp(inverse * numbers[i], lowest, highest));
      products += weights[i] * integer * numbers[i];
      squares += weights[i] * integer * integer;
    }
    if (!(squares > 0 && products / squares * products > best_gain)) continue;
    best_scale = products / squares;
    best_gain = best_scale * products;
  }
  return best_scale;
}

GRAFT_INLINE_IN_CLONES float as_half(float value) { return half_to_float(float_to_half(value)); }

}  // namespace graft
