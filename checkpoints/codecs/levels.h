// What a form's codes stand for before the scale, as the encoders search among them. Levels are floats, so that loops over them vectorise:
//   kLowest, kHighest        the ends
//   nearest(value)           the level next to a value
//   code(level)              the code that stands for it
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>

#include "kernels/quantized/simd_clones.h"

namespace graft {

// To the nearest integer, halves to even, for |value| < 2^22: behind the first sum no bit below one is left.
GRAFT_INLINE_IN_CLONES float rounded(float value) { return (value + 12582912.0f) - 12582912.0f; }

// -kHalf to kHalf - 1.
template <int kHalf>
struct EvenLevels {
  static constexpr float kLowest = -kHalf, kHighest = kHalf - 1;
  static GRAFT_INLINE_IN_CLONES float nearest(float value) { return rounded(std::clamp(value, kLowest, kHighest)); }
  static GRAFT_INLINE_IN_CLONES uint8_t code(float level) { return static_cast<uint8_t>(static_cast<int>(level) + kHalf); }
};

// Those of IQ4_NL and IQ4_XS.
struct NonLinearLevels {
  static constexpr float kLevels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
  static constexpr float kLowest = kLevels[0], kHighest = kLevels[15];
  static GRAFT_INLINE_IN_CLONES float nearest(float value) {
    float level = kLowest;
    for (int i = 1; i < 16; ++i) level = value > (kLevels[i - 1] + kLevels[i]) / 2 ? kLevels[i] : level;
    return level;
  }
  static GRAFT_INLINE_IN_CLONES uint8_t code(float level) {
    int code = 0;
    for (int i = 1; i < 16; ++i) code += level >= kLevels[i];
    return static_cast<uint8_t>(code);
  }
};

// Twice those of MXFP4, so that all are integers; the highest bit of a code is the sign.
struct MicroscalingLevels {
  static constexpr float kLevels[8] = {0, 1, 2, 3, 4, 6, 8, 12};
  static constexpr float kLowest = -12, kHighest = 12;
  static GRAFT_INLINE_IN_CLONES float nearest(float value) {
    const float magnitude = value < 0 ? -value : value;
    float level = 0;
    for (int i = 1; i < 8; ++i) level = magnitude > (kLevels[i - 1] + kLevels[i]) / 2 ? kLevels[i] : level;
    return value < 0 ? -level : level;
  }
  static GRAFT_INLINE_IN_CLONES uint8_t code(float level) {
    const float magnitude = level < 0 ? -level : level;
    int code = level < 0 ? 8 : 0;
    for (int i = 1; i < 8; ++i) code += magnitude >= kLevels[i];
    return static_cast<uint8_t>(code);
  }
};

}  // namespace graft
