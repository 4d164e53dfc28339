// One code a byte to the bits of a block (kernels/quantized/block_layouts.h says where each lies).
#pragma once
#include <algorithm>
#include <cstdint>

#include "kernels/quantized/block_layouts.h"
#include "kernels/quantized/simd_clones.h"

namespace graft {

// Byte j: element j in the low nibble, element j + 16 in the high one; bit 4 of each goes to `fifth_bits`.
GRAFT_INLINE_IN_CLONES void pack_halves(const uint8_t codes[32], uint8_t nibbles[16], uint32_t* fifth_bits) {
  uint32_t bits = 0;
  for (int j = 0; j < 16; ++j) {
    nibbles[j] = static_cast<uint8_t>((codes[j] & 15) | (codes[j + 16] & 15) << 4);
    bits |= static_cast<uint32_t>(codes[j] >> 4) << j | static_cast<uint32_t>(codes[j + 16] >> 4) << (j + 16);
  }
  if (fifth_bits != nullptr) *fifth_bits = bits;
}

// Element 32 * i + l of each 128 in bits 2i of byte l: `pairs` of Q2_K and Q3_K, the high pairs of Q6_K's codes.
GRAFT_INLINE_IN_CLONES void pack_pairs(const uint8_t codes[256], int shift, uint8_t pairs[64]) {
  for (int i = 0; i < 64; ++i) {
    const uint8_t* c = codes + i / 32 * 128 + i % 32;
    pairs[i] = static_cast<uint8_t>((c[0] >> shift & 3) | (c[32] >> shift & 3) << 2 | (c[64] >> shift & 3) << 4 | (c[96] >> shift & 3) << 6);
  }
}

// Bit `bit` of element 32 * b + l in bit b of byte l.
GRAFT_INLINE_IN_CLONES void pack_single_bits(const uint8_t codes[256], int bit, uint8_t bits[32]) {
  std::fill_n(bits, 32, uint8_t{0});
  for (int i = 0; i < 256; ++i) bits[i % 32] |= static_cast<uint8_t>((codes[i] >> bit & 1) << i / 32);
}

// Per 64 elements 32 bytes: element l low, element l + 32 high. Of Q4_K and Q5_K.
GRAFT_INLINE_IN_CLONES void pack_nibbles_of_64(const uint8_t codes[256], uint8_t nibbles[128]) {
  for (int i = 0; i < 128; ++i) {
    const uint8_t* pair = codes + i / 32 * 64 + i % 32;
    nibbles[i] = static_cast<uint8_t>((pair[0] & 15) | (pair[32] & 15) << 4);
  }
}

// 8 pairs of 6 bits: the inverse of unpack_scale_and_minimum.
GRAFT_INLINE_IN_CLONES void pack_scales_and_minima(const int scales[8], const int minima[8], uint8_t bytes[12]) {
  for (int i = 0; i < 4; ++i) {
    bytes[i] = static_cast<uint8_t>(scales[i] | (scales[i + 4] >> 4) << 6);
    bytes[i + 4] = static_cast<uint8_t>(minima[i] | (minima[i + 4] >> 4) << 6);
    bytes[i + 8] = static_cast<uint8_t>((scales[i + 4] & 15) | (minima[i + 4] & 15) << 4);
  }
}

GRAFT_INLINE_IN_CLONES void pack(const uint8_t codes[256], BlockQ4_K& block) { pack_nibbles_of_64(codes, block.nibbles); }

GRAFT_INLINE_IN_CLONES void pack(const uint8_t codes[256], BlockQ5_K& block) {
  pack_nibbles_of_64(codes, block.nibbles);
  pack_single_bits(codes, 4, block.fifth_bits);
}

GRAFT_INLINE_IN_CLONES void pack(const uint8_t codes[256], BlockQ6_K& block) {
  pack_pairs(codes, 4, block.high_pairs);
  for (int i = 0; i < 128; ++i) {
    const uint8_t* pair = codes + i / 64 * 128 + i % 64;
    block.low_nibbles[i] = static_cast<uint8_t>((pair[0] & 15) | (pair[64] & 15) << 4);
  }
}

}  // namespace graft
