// The loops are written so that the compiler vectorises them: fixed trip counts of 16 or 32, no branches, one scale each.
#include "kernels/quantized/dequantize_blocks.h"

#include <bit>

#include "kernels/quantized/simd_clones.h"
#include "kernels/quantized/small_floats.h"

namespace graft {
namespace {

GRAFT_INLINE_IN_CLONES void decode(const BlockQ4_0& block, float* __restrict out) {
  const float scale = half_to_float(block.scale);
  for (int j = 0; j < 16; ++j) {
    out[j] = static_cast<float>((block.nibbles[j] & 15) - 8) * scale;
    out[j + 16] = static_cast<float>((block.nibbles[j] >> 4) - 8) * scale;
  }
}

GRAFT_INLINE_IN_CLONES void decode(const BlockQ4_1& block, float* __restrict out) {
  const float scale = half_to_float(block.scale);
  const float minimum = half_to_float(block.minimum);
  for (int j = 0; j < 16; ++j) out[j] = static_cast<float>(block.nibbles[j] & 15) * scale + minimum;
  for (int j = 0; j < 16; ++j) out[j + 16] = static_cast<float>(block.nibbles[j] >> 4) * scale + minimum;
}

GRAFT_INLINE_IN_CLONES void decode(const BlockQ5_0& block, float* __restrict out) {
  const float scale = half_to_float(block.scale);
  const uint32_t bits = block.fifth_bits;
  for (int j = 0; j < 16; ++j) {
    const int low = (block.nibbles[j] & 15) | (bits >> j & 1) << 4;
    const int high = (block.nibbles[j] >> 4) | (bits >> (j + 16) & 1) << 4;
    out[j] = static_cast<float>(low - 16) * scale;
    out[j + 16] = static_cast<float>(high - 16) * scale;
  }
}

GRAFT_INLINE_IN_CLONES void decode(const BlockQ5_1& block, float* __restrict out) {
  const float scale = half_to_float(block.scale);
  const float minimum = half_to_float(block.minimum);
  const uint32_t bits = block.fifth_bits;
  for (int j = 0; j < 16; ++j) {
    const int low = (block.nibbles[j] & 15) | (bits >> j & 1) << 4;
    const int high = (block.nibbles[j] >> 4) | (bits >> (j + 16) & 1) << 4;
    out[j] = static_cast<float>(low) * scale + minimum;
    out[j + 16] = static_cast<float>(high) * scale + minimum;
  }
}

GRAFT_INLINE_IN_CLONES void decode(const BlockQ8_0& block, float* __restrict out) {
  const float scale = half_to_float(block.scale);
  for (int j = 0; j < 32; ++j) out[j] = static_cast<float>(block.codes[j]) * scale;
}

// Twice the values of a float with two exponent bits and one of mantissa, and half the scale: 2^(exponent - 128), the two smallest of them denormal.
GRAFT_INLINE_IN_CLONES void decode(const BlockMXFP4& block, float* __restrict out) {
  constexpr float kTwice[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  const uint32_t exponent = block.exponent;
  const float scale = std::bit_cast<float>(exponent < 2 ? 0x00200000u << exponent : (exponent - 1) << 23);
  for (int j = 0; j < 16; ++j) {
    out[j] = kTwice[block.nibbles[j] & 15] * scale;
    out[j + 16] = kTwice[block.nibbles[j] >> 4] * scale;
  }
}

GRAFT_INLINE_IN_CLONES void decode(const BlockQ2_K& block, float* __restrict out) {
  const float scale = half_to_float(block.scale);
  const float minimum = half_to_float(block.minimum);
  for (int sub = 0; sub < 16; ++sub) {  // 16 elements each
    const uint8_t* codes = block.codes + sub / 8 * 32 + sub % 2 * 16;
    const int shift = sub % 8 / 2 * 2;
    const float sub_scale = scale * static_cast<float>(block.scales[sub] & 15);
    const float sub_minimum = minimum * static_cast<float>(block.scales[sub] >> 4);
    for (int l = 0; l < 16; ++l) out[16 * sub + l] = sub_scale * static_cast<float>(codes[l] >> shift & 3) - sub_minimum;
  }
}

GRAFT_INLINE_IN_CLONES void decode(const BlockQ3_K& block, float* __restrict out) {
  const float scale = half_to_float(block.scale);
  for (int sub = 0; sub < 16; ++sub) {
    const int low = sub < 8 ? block.scales[sub] & 15 : block.scales[sub - 8] >> 4;
    const int high = block.scales[8 + sub % 4] >> sub / 4 * 2 & 3;
    const float sub_scale = scale * static_cast<float>((low | high << 4) - 32);
    const uint8_t* codes = block.codes + sub / 8 * 32 + sub % 2 * 16;
    const uint8_t* third_bits = block.third_bits + sub % 2 * 16;
    const int shift = sub % 8 / 2 * 2;
    for (int l = 0; l < 16; ++l) {
      const int code = (codes[l] >> shift & 3) | (third_bits[l] >> sub / 2 & 1) << 2;
      out[16 * sub + l] = sub_scale * static_cast<float>(code - 4);
    }
  }
}

GRAFT_INLINE_IN_CLONES void decode(const BlockQ4_K& block, float* __restrict out) {
  const float scale = half_to_float(block.scale);
  const float minimum = half_to_float(block.minimum);
  for (int pair = 0; pair < 4; ++pair) {  // 64 elements: two sub-blocks share 32 bytes
    int scale_low, minimum_low, scale_high, minimum_high;
    unpack_scale_and_minimum(block.scales, 2 * pair, scale_low, minimum_low);
    unpack_scale_and_minimum(block.scales, 2 * pair + 1, scale_high, minimum_high);
    const float s0 = scale * static_cast<float>(scale_low), m0 = minimum * static_cast<float>(minimum_low);
    const float s1 = scale * static_cast<float>(scale_high), m1 = minimum * static_cast<float>(minimum_high);
    const uint8_t* nibbles = block.nibbles + 32 * pair;
    for (int l = 0; l < 32; ++l) out[64 * pair + l] = s0 * static_cast<float>(nibbles[l] & 15) - m0;
    for (int l = 0; l < 32; ++l) out[64 * pair + 32 + l] = s1 * static_cast<float>(nibbles[l] >> 4) - m1;
  }
}

GRAFT_INLINE_IN_CLONES void decode(const BlockQ5_K& block, float* __restrict out) {
  const float scale = half_to_float(block.scale);
  const float minimum = half_to_float(block.minimum);
  for (int sub = 0; sub < 8; ++sub) {
    int sub_scale, sub_minimum;
    unpack_scale_and_minimum(block.scales, sub, sub_scale, sub_minimum);
    const float s = scale * static_cast<float>(sub_scale), m = minimum * static_cast<float>(sub_minimum);
    const uint8_t* nibbles = block.nibbles + sub / 2 * 32;
    const int shift = sub % 2 * 4;
    for (int l = 0; l < 32; ++l) {
      const int code = (nibbles[l] >> shift & 15) | (block.fifth_bits[l] >> sub & 1) << 4;
      out[32 * sub + l] = s * static_cast<float>(code) - m;
    }
  }
}

GRAFT_INLINE_IN_CLONES void decode(const BlockQ6_K& block, float* __restrict out) {
  const float scale = half_to_float(block.scale);
  for (int sub = 0; sub < 16; ++sub) {  // 16 elements each
    const float sub_scale = scale * static_cast<float>(block.scales[sub]);
    const uint8_t* low = block.low_nibbles + sub / 8 * 64 + sub % 4 * 16;
    const uint8_t* high = block.high_pairs + sub / 8 * 32 + sub % 2 * 16;
    const int low_shift = sub % 8 / 4 * 4;
    const int high_shift = sub % 8 / 2 * 2;
    for (int l = 0; l < 16; ++l) {
      const int code = (low[l] >> low_shift & 15) | (high[l] >> high_shift & 3) << 4;
      out[16 * sub + l] = sub_scale * static_cast<float>(code - 32);
    }
  }
}

template <typename Block>
GRAFT_INLINE_IN_CLONES void decode_all(const Block* blocks, int64_t num_blocks, float* destination) {
  for (int64_t i = 0; i < num_blocks; ++i) decode(blocks[i], destination + i * Block::kElements);
}

// In two passes through the first-level cache, which vectorises twice as fast as rounding inside the decoders.
template <typename Block>
GRAFT_INLINE_IN_CLONES void decode_all(const Block* blocks, int64_t num_blocks, uint16_t* destination) {
  constexpr int kChunk = 512 / Block::kElements;
  alignas(64) float values[512];
  for (int64_t first = 0; first < num_blocks; first += kChunk) {
    const int count = num_blocks - first < kChunk ? static_cast<int>(num_blocks - first) : kChunk;
    for (int i = 0; i < count; ++i) decode(blocks[first + i], values + i * Block::kElements);
    uint16_t* __restrict out = destination + first * Block::kElements;
    for (int i = 0; i < count * Block::kElements; ++i) out[i] = float_to_bf16(values[i]);
  }
}

}  // namespace

// target_clones needs plain functions, hence one line for each type and output.
#define GRAFT_DECODER(name, Block)                                                              \
  GRAFT_SIMD_CLONES void name(const Block* blocks, int64_t num_blocks, float* destination) {    \
    decode_all(blocks, num_blocks, destination);                                                \
  }                                                                                             \
  GRAFT_SIMD_CLONES void name(const Block* blocks, int64_t num_blocks, uint16_t* destination) { \
    decode_all(blocks, num_blocks, destination);                                                \
  }
GRAFT_DECODER(decode_q4_0, BlockQ4_0)
GRAFT_DECODER(decode_q4_1, BlockQ4_1)
GRAFT_DECODER(decode_q5_0, BlockQ5_0)
GRAFT_DECODER(decode_q5_1, BlockQ5_1)
GRAFT_DECODER(decode_q8_0, BlockQ8_0)
GRAFT_DECODER(decode_q2_k, BlockQ2_K)
GRAFT_DECODER(decode_q3_k, BlockQ3_K)
GRAFT_DECODER(decode_q4_k, BlockQ4_K)
GRAFT_DECODER(decode_q5_k, BlockQ5_K)
GRAFT_DECODER(decode_q6_k, BlockQ6_K)
GRAFT_DECODER(decode_mxfp4, BlockMXFP4)
#undef GRAFT_DECODER

}  // namespace graft
