#include "checkpoints/codecs/quantize_rows.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "checkpoints/codecs/pack_codes.h"
#include "checkpoints/codecs/scale_search.h"
#include "kernels/quantized/host_block.h"

namespace graft {
namespace {

constexpr int kHalf = 16;   // elements of NVFP4 below one scale
constexpr float kLargestE4M3 = 448, kLargestE2M1 = 6;

float largest_of(const float* values, int64_t count) {
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(values[i]));
  return largest;
}

// At least `value`, above zero.
float rounded_up_bf16(float value) {
  const float rounded_value = bf16_to_float(float_to_bf16(value));
  if (!(value > 0)) return 1;
  return rounded_value >= value ? rounded_value : bf16_to_float(static_cast<uint16_t>(float_to_bf16(value) + 1));
}

uint8_t code_at(float value, const BlockF8E4M3& block) { return e4m3_of(value / block.scale); }
int8_t code_at(float value, const BlockI8& block) { return static_cast<int8_t>(std::clamp(std::nearbyint(value / block.scale), -127.0f, 127.0f)); }

template <typename Block>
void encode_at_scale(const float* values, float scale, Block& block) {
  block.scale = scale;
  for (int i = 0; i < Block::kElements; ++i) block.codes[i] = code_at(values[i], block);
}

template <typename Block>
void encode_one_scale(const float* values, int64_t columns, float largest_code, Block* blocks) {
  const float scale = rounded_up_bf16(largest_of(values, columns) / largest_code);
  for (int64_t column = 0; column < columns; column += Block::kElements) encode_at_scale(values + column, scale, blocks[column / Block::kElements]);
}

// The scale for 16 values, of the E4M3 numbers around the one that spans them.
float search_half(const float* values, const float* weights, float global_scale) {
  const int middle = e4m3_of(largest_of(values, kHalf) / kLargestE2M1 * global_scale);
  float best = 0, least = INFINITY;
  for (int code = std::max(middle - 4, 1); code <= std::min(middle + 6, 0x7e); ++code) {   // 6 codes up: values between 4 and 6 steps would do with 4 too
    const float scale = float_of_e4m3<HostBlock>(static_cast<uint32_t>(code)) / global_scale;
    const float error = error_at<MicroscalingLevels, kHalf>(values, weights, scale / 2);
    if (!(error < least)) continue;
    least = error;
    best = scale;
  }
  return best;
}

}  // namespace

uint8_t e4m3_of(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint8_t>(bits >> 24 & 0x80);
  const float magnitude = std::fabs(value);
  if (!(magnitude < 464)) return sign | 0x7e;   // halfway to the next, which would be 480
  if (magnitude < 0x1p-6f) {                    // below the smallest normal number: 2^14 has the subnormals' spacing 2^-9 as its last bit, so the sum rounds
    const float sum = magnitude + 0x1p14f;
    return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(sum) - std::bit_cast<uint32_t>(0x1p14f)));
  }
  const uint32_t rounded_bits = (bits & 0x7fffffff) + 0x7ffff + (bits >> 20 & 1);
  return static_cast<uint8_t>(sign | (rounded_bits - (120U << 23)) >> 20);
}

void encode_row(const float* values, int64_t columns, BlockI8* blocks) { encode_one_scale(values, columns, 127, blocks); }
void encode_row(const float* values, int64_t columns, BlockF8E4M3* blocks) { encode_one_scale(values, columns, kLargestE4M3, blocks); }

void encode_squares(const float* values, int64_t rows, int64_t columns, BlockF8E4M3* blocks) {
  constexpr int64_t kSide = 128, kElements = BlockF8E4M3::kElements;
  for (int64_t first = 0; first < columns; first += kSide) {
    const int64_t count = std::min(kSide, columns - first);
    float largest = 0;
    for (int64_t row = 0; row < rows; ++row) largest = std::max(largest, largest_of(values + row * columns + first, count));
    const float scale = rounded_up_bf16(largest / kLargestE4M3);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t column = first; column < first + count; column += kElements) encode_at_scale(values + row * columns + column, scale, blocks[(row * columns + column) / kElements]);
    }
  }
}

float nvfp4_global_scale(float largest) { return largest > 0 ? kLargestE4M3 * kLargestE2M1 / largest : 1.0F; }

void encode_row(const float* values, int64_t columns, float global_scale, const float* importance, BlockNVFP4* blocks) {
  uint8_t codes[BlockNVFP4::kElements];
  float weights[kHalf];
  for (int64_t first = 0; first < columns; first += kHalf) {
    auto& block = blocks[first / BlockNVFP4::kElements];
    const int half = static_cast<int>(first / kHalf % 2);
    weigh<kHalf>(values + first, importance == nullptr ? nullptr : importance + first, weights);
    block.scales[half] = search_half(values + first, weights, global_scale);
    encode_at<MicroscalingLevels, kHalf>(values + first, block.scales[half] / 2, codes + half * kHalf);
    if (half == 1) pack_halves(codes, block.nibbles, nullptr);
  }
}

}  // namespace graft
