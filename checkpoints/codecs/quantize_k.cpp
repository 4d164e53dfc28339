// Q4_K, Q5_K and Q6_K without importance. Each sub-block's scale is searched on a small grid around the one that spans its range,
// with a least-squares scale for each candidate's codes. The order of the float operations is ggml's: its bytes are the test.
#include <algorithm>
#include <bit>
#include <cmath>

#include "checkpoints/codecs/pack_codes.h"
#include "checkpoints/codecs/quantize_blocks.h"
#include "kernels/quantized/small_floats.h"

namespace graft {
namespace {

// To nearest even for |value| < 2^22: behind the sum the last bit of the significand counts ones. ggml rounds so, and so
// must we where std::round would take the other of two halves.
int nearest_even(float value) {
  return static_cast<int>((std::bit_cast<uint32_t>(value + 12582912.0f) & 0x007fffff) - 0x00400000);
}

constexpr float kSmallestGroup = 1e-15f;  // sub-blocks below it are zero

struct Affine {  // values ~ scale * code - minimum, minimum >= 0
  float scale = 0, minimum = 0;
};

// How ggml searches each type's grid: candidates (first + step * i + max_code) / range for i = 0 to count.
struct Grid {
  int max_code;
  float first, step;
  int count;
};

void encode_affine(const float* values, int count, float inverse, float minimum, int max_code, uint8_t* codes) {
  for (int i = 0; i < count; ++i)
    codes[i] = static_cast<uint8_t>(std::clamp(nearest_even(inverse * (values[i] - minimum)), 0, max_code));
}

float weighted_error(const float* values, const float* weights, const uint8_t* codes, int count, float scale, float minimum) {
  float error = 0;
  for (int i = 0; i < count; ++i) {
    const float difference = scale * static_cast<float>(codes[i]) + minimum - values[i];
    error += weights[i] * (difference * difference);
  }
  return error;
}

// Weighted least squares for one sub-block of 32 values, weights positive; the minimum is held at 0 or below. `best_codes`
// are the codes of that fit: they stay in the file where the sub-block's 6-bit scale rounds to zero.
Affine fit_affine(const float* values, const float* weights, const Grid& grid, uint8_t* best_codes) {
  constexpr int kCount = 32;
  float low = values[0], high = values[0], sum_weights = weights[0], sum_values = sum_weights * values[0];
  for (int i = 1; i < kCount; ++i) {
    low = std::min(low, values[i]);
    high = std::max(high, values[i]);
    sum_weights += weights[i];
    sum_values += weights[i] * values[i];
  }
  low = std::min(low, 0.0f);
  if (high == low) {
    std::fill_n(best_codes, kCount, uint8_t{0});
    return {0, -low};
  }
  uint8_t codes[kCount];
  const float range = high - low;
  const float span_inverse = static_cast<float>(grid.max_code) / range;
  float best_scale = 1 / span_inverse, best_minimum = low;
  encode_affine(values, kCount, span_inverse, low, grid.max_code, best_codes);
  float best_error = weighted_error(values, weights, best_codes, kCount, best_scale, best_minimum);
  float minimum = low;  // moves with each improvement, and so do the codes of later candidates
  for (int step = 0; step <= grid.count; ++step) {
    const float inverse =
        (grid.first + grid.step * static_cast<float>(step) + static_cast<float>(grid.max_code)) / (high - minimum);
    encode_affine(values, kCount, inverse, minimum, grid.max_code, codes);
    float sum_codes = 0, sum_squares = 0, sum_products = 0;
    for (int i = 0; i < kCount; ++i) {
      const auto code = static_cast<float>(codes[i]);
      sum_codes += weights[i] * code;
      sum_squares += weights[i] * code * code;
      sum_products += weights[i] * code * values[i];
    }
    const float determinant = sum_weights * sum_squares - sum_codes * sum_codes;
    if (!(determinant > 0)) continue;
    float scale = (sum_weights * sum_products - sum_values * sum_codes) / determinant;
    float offset = (sum_squares * sum_values - sum_codes * sum_products) / determinant;
    if (offset > 0) {
      offset = 0;
      scale = sum_products / sum_squares;
    }
    const float error = weighted_error(values, weights, codes, kCount, scale, offset);
    if (error >= best_error) continue;
    best_error = error;
    best_scale = scale;
    best_minimum = minimum = offset;
    std::copy_n(codes, kCount, best_codes);
  }
  return {best_scale, -best_minimum};
}

// Scales and minima of 8 sub-blocks as 6-bit numbers below two half-precision ones, then the codes for what those say.
template <typename Block>
void encode_affine_block(const float* values, const Grid& grid, Block& block, uint8_t codes[256]) {
  Affine fits[8];
  float max_scale = 0, max_minimum = 0;
  for (int sub = 0; sub < 8; ++sub) {
    const float* x = values + 32 * sub;
    float sum_squares = 0, weights[32];
    for (int i = 0; i < 32; ++i) sum_squares += x[i] * x[i];
    const float magnitude = std::sqrt(sum_squares / 32);
    for (int i = 0; i < 32; ++i) weights[i] = magnitude + std::fabs(x[i]);
    fits[sub] = fit_affine(x, weights, grid, codes + 32 * sub);
    max_scale = std::max(max_scale, fits[sub].scale);
    max_minimum = std::max(max_minimum, fits[sub].minimum);
  }
  const float inverse_scale = max_scale > 0 ? 63.0f / max_scale : 0.0f;
  const float inverse_minimum = max_minimum > 0 ? 63.0f / max_minimum : 0.0f;
  int scales[8], minima[8];
  for (int sub = 0; sub < 8; ++sub) {
    scales[sub] = std::min(63, static_cast<int>(static_cast<uint8_t>(nearest_even(inverse_scale * fits[sub].scale))));
    minima[sub] = std::min(63, static_cast<int>(static_cast<uint8_t>(nearest_even(inverse_minimum * fits[sub].minimum))));
  }
  pack_scales_and_minima(scales, minima, block.scales);
  block.scale = float_to_half(max_scale / 63.0f);
  block.minimum = float_to_half(max_minimum / 63.0f);
  for (int sub = 0; sub < 8; ++sub) {
    int stored_scale, stored_minimum;
    unpack_scale_and_minimum([&](int i) { return block.scales[i]; }, sub, stored_scale, stored_minimum);
    const float scale = half_to_float(block.scale) * static_cast<float>(stored_scale);
    const float minimum = half_to_float(block.minimum) * static_cast<float>(stored_minimum);
    if (scale == 0) continue;
    for (int i = 32 * sub; i < 32 * sub + 32; ++i)
      codes[i] = static_cast<uint8_t>(std::clamp(nearest_even((values[i] + minimum) / scale), 0, grid.max_code));
  }
}

// Codes 0 to 63 around 32 for one sub-block of Q6_K.
void encode_symmetric(const float* values, float inverse, uint8_t codes[16]) {
  for (int i = 0; i < 16; ++i) codes[i] = static_cast<uint8_t>(std::clamp(nearest_even(inverse * values[i]), -32, 31) + 32);
}

// One sub-block of Q6_K: the scale whose codes fit 16 values best, weighted by their squares. `best_codes` as above.
float fit_symmetric(const float* values, uint8_t best_codes[16]) {
  float magnitude = 0, extreme = 0;
  for (int i = 0; i < 16; ++i) {
    if (std::fabs(values[i]) <= magnitude) continue;
    magnitude = std::fabs(values[i]);
    extreme = values[i];
  }
  if (magnitude < kSmallestGroup) {
    std::fill_n(best_codes, 16, uint8_t{0});
    return 0;
  }
  float best_scale = 0, best_score = 0;
  // Step 0 spans the range and is the one to beat, so it comes first.
  for (const int step : {0, -9, -8, -7, -6, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6, 7, 8, 9}) {
    uint8_t codes[16];
    encode_symmetric(values, -(32.0f + 0.1f * static_cast<float>(step)) / extreme, codes);
    float products = 0, squares = 0;
    for (int i = 0; i < 16; ++i) {
      const auto code = static_cast<float>(codes[i] - 32);
      const float weight = values[i] * values[i];
      products += weight * values[i] * code;
      squares += weight * code * code;
    }
    if (step != 0 && !(squares > 0 && products * products > best_score * squares)) continue;
    best_scale = squares != 0 ? products / squares : 0.0f;
    best_score = best_scale * products;
    std::copy_n(codes, 16, best_codes);
  }
  return best_scale;
}

}  // namespace

void encode(const float* values, BlockQ4_K& block) {
  uint8_t codes[256];
  encode_affine_block(values, {.max_code = 15, .first = -1.0f, .step = 0.1f, .count = 20}, block, codes);
  pack(codes, block);
}

void encode(const float* values, BlockQ5_K& block) {
  uint8_t codes[256];
  encode_affine_block(values, {.max_code = 31, .first = -0.5f, .step = 0.1f, .count = 15}, block, codes);
  pack(codes, block);
}

void encode(const float* values, BlockQ6_K& block) {
  float scales[16], max_magnitude = 0, max_scale = 0;
  uint8_t codes[256];
  for (int sub = 0; sub < 16; ++sub) {
    scales[sub] = fit_symmetric(values + 16 * sub, codes + 16 * sub);
    if (std::fabs(scales[sub]) <= max_magnitude) continue;
    max_magnitude = std::fabs(scales[sub]);
    max_scale = scales[sub];
  }
  block = {};
  if (max_magnitude < kSmallestGroup) return;
  const float inverse = -128.0f / max_scale;
  block.scale = float_to_half(1 / inverse);
  for (int sub = 0; sub < 16; ++sub) {
    block.scales[sub] = static_cast<int8_t>(std::min(127, nearest_even(inverse * scales[sub])));
    const float scale = half_to_float(block.scale) * static_cast<float>(block.scales[sub]);
    if (scale == 0) continue;
    for (int i = 16 * sub; i < 16 * sub + 16; ++i)
      codes[i] = static_cast<uint8_t>(std::clamp(nearest_even(values[i] / scale), -32, 31) + 32);
  }
  pack(codes, block);
}

}  // namespace graft
