// Block layouts of ggml (GGUF v3), byte for byte. A row is a whole number of blocks; `scale` is the half-precision d of
// ggml, `minimum` its m or dmin. Packed: a GGUF file may place a tensor at any byte, so no member may assume alignment.
#pragma once
#include <cstdint>

namespace graft {

#pragma pack(push, 1)

// 32 elements. In all 4- and 5-bit blocks byte j holds element j in its low nibble and element j + 16 in its high one.
struct BlockQ4_0 {  // w = scale * (q - 8)
  static constexpr int kElements = 32;
  uint16_t scale;
  uint8_t nibbles[16];
};
struct BlockQ4_1 {  // w = scale * q + minimum
  static constexpr int kElements = 32;
  uint16_t scale;
  uint16_t minimum;
  uint8_t nibbles[16];
};
struct BlockQ5_0 {  // w = scale * (q - 16); bit j of fifth_bits belongs to element j
  static constexpr int kElements = 32;
  uint16_t scale;
  uint32_t fifth_bits;
  uint8_t nibbles[16];
};
struct BlockQ5_1 {  // w = scale * q + minimum
  static constexpr int kElements = 32;
  uint16_t scale;
  uint16_t minimum;
  uint32_t fifth_bits;
  uint8_t nibbles[16];
};
struct BlockQ8_0 {  // w = scale * q
  static constexpr int kElements = 32;
  uint16_t scale;
  int8_t codes[32];
};

// 256 elements ("K-quants"): sub-blocks of 16 or 32 elements with small integer scales below one half-precision scale.
struct BlockQ2_K {  // 16 sub-blocks of 16: w = scale * (s & 15) * q - minimum * (s >> 4)
  static constexpr int kElements = 256;
  uint8_t scales[16];
  uint8_t codes[64];  // per 128 elements 32 bytes, element 32 * i + l in bits 2i of byte l
  uint16_t scale;
  uint16_t minimum;
};
struct BlockQ3_K {  // 16 sub-blocks of 16: w = scale * (s - 32) * (q - 4)
  static constexpr int kElements = 256;
  uint8_t third_bits[32];  // bit b of byte l: element 32 * b + l
  uint8_t codes[64];       // the low two bits, laid out as in Q2_K
  uint8_t scales[12];      // 16 scales of 6 bits: low nibbles in bytes 0-7, high pairs in bytes 8-11
  uint16_t scale;
};
struct BlockQ4_K {  // 8 sub-blocks of 32: w = scale * s * q - minimum * m
  static constexpr int kElements = 256;
  uint16_t scale;
  uint16_t minimum;
  uint8_t scales[12];    // 8 pairs (s, m) of 6 bits
  uint8_t nibbles[128];  // per 64 elements 32 bytes: element l low, element l + 32 high
};
struct BlockQ5_K {  // as Q4_K with a fifth bit
  static constexpr int kElements = 256;
  uint16_t scale;
  uint16_t minimum;
  uint8_t scales[12];
  uint8_t fifth_bits[32];  // bit b of byte l: element 32 * b + l
  uint8_t nibbles[128];
};
struct BlockQ6_K {  // 16 sub-blocks of 16: w = scale * s * (q - 32)
  static constexpr int kElements = 256;
  uint8_t low_nibbles[128];  // per 128 elements 64 bytes: elements l and l + 32 low, l + 64 and l + 96 high
  uint8_t high_pairs[64];    // per 128 elements 32 bytes: element 32 * i + l in bits 2i of byte l
  int8_t scales[16];
  uint16_t scale;
};
struct BlockMXFP4 {  // w = e2m1(q) * 2^(exponent - 127): OCP Microscaling Formats 1.0
  static constexpr int kElements = 32;
  uint8_t exponent;
  uint8_t nibbles[16];
};

#pragma pack(pop)

static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20 && sizeof(BlockQ5_0) == 22 && sizeof(BlockQ5_1) == 24);
static_assert(sizeof(BlockQ8_0) == 34 && sizeof(BlockQ2_K) == 84 && sizeof(BlockQ3_K) == 110 && sizeof(BlockQ4_K) == 144);
static_assert(sizeof(BlockQ5_K) == 176 && sizeof(BlockQ6_K) == 210 && sizeof(BlockMXFP4) == 17);

// The i-th (scale, minimum) pair of Q4_K and Q5_K: pairs 0-3 lie in the low 6 bits of bytes 0-7; pairs 4-7 have their low
// nibbles in bytes 8-11 and their high pairs in the top bits of bytes 0-7.
inline void unpack_scale_and_minimum(const uint8_t scales[12], int i, int& scale, int& minimum) {
  if (i < 4) {
    scale = scales[i] & 63;
    minimum = scales[i + 4] & 63;
  } else {
    scale = (scales[i + 4] & 15) | (scales[i - 4] >> 6) << 4;
    minimum = (scales[i + 4] >> 4) | (scales[i] >> 6) << 4;
  }
}

}  // namespace graft
