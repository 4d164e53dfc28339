// Block layouts of ggml (GGUF v3), byte for byte, and, behind them, graft's own for forms whose files hold codes and scales apart. A row is a whole number
// of blocks; `scale` is the half-precision d of ggml, `minimum` its m or dmin. Packed: a GGUF file may place a tensor at any byte, so no member may assume
// alignment. For host and device code: C++17.
#pragma once
#include <cstdint>

// Of host code, inlined into each of its SIMD clones; of device code; and of the emulator's.
#ifdef __CUDACC__
#define GRAFT_BLOCK_FUNCTION __device__ __forceinline__
#define GRAFT_BLOCK_UNROLL _Pragma("unroll")
#else
#define GRAFT_BLOCK_FUNCTION inline __attribute__((always_inline))
#define GRAFT_BLOCK_UNROLL _Pragma("GCC unroll 1")   // unrolled at once it is not vectorised
#endif

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
struct BlockIQ4_NL {  // w = scale * kNonLinear4[q]
  static constexpr int kElements = 32;
  uint16_t scale;
  uint8_t nibbles[16];
};
struct BlockIQ4_XS {  // 8 sub-blocks of 32: w = scale * (s - 32) * kNonLinear4[q]
  static constexpr int kElements = 256;
  uint16_t scale;
  uint16_t high_pairs;      // of s: bits 2i and 2i + 1 belong to sub-block i
  uint8_t low_nibbles[4];   // of s: byte j holds sub-block 2j in its low nibble and 2j + 1 in its high one
  uint8_t nibbles[128];     // per sub-block 16 bytes, as in IQ4_NL
};

// graft's own: a block carries the scale of its group (checkpoints/codecs/grouped_blocks.h makes them), so that rows move, split and stack as those of ggml
// do. Nibbles are those of ggml's blocks of 32, one after another.
struct BlockNF4 {  // w = kNormalFloat4[q] * scale: QLoRA (arXiv 2305.14314), the statistics of double quantisation already decoded
  static constexpr int kElements = 64;
  float scale;
  uint8_t nibbles[32];
};
struct BlockF8E4M3 {  // w = e4m3(code) * scale
  static constexpr int kElements = 64;
  float scale;
  uint8_t codes[64];
};
struct BlockI8 {  // w = q * scale
  static constexpr int kElements = 64;
  float scale;
  int8_t codes[64];
};
struct BlockNVFP4 {  // w = e2m1(q) * its half's scale: 16 elements share one, an E4M3 number over the tensor's global scale, already divided
  static constexpr int kElements = 32;
  float scales[2];
  uint8_t nibbles[16];
};
template <int kGroup>
struct BlockI4 {  // w = (q - 8) * scale
  static constexpr int kElements = kGroup;
  uint16_t scale;  // bfloat16
  uint8_t nibbles[kGroup / 2];
};
template <int kGroup>
struct BlockI4Zero {  // w = (q - zero) * scale
  static constexpr int kElements = kGroup;
  uint32_t scale_and_zero;  // a float32 whose lowest byte, 0 in every bfloat16 and float16, is the zero point
  uint8_t nibbles[kGroup / 2];
};

#pragma pack(pop)

static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20 && sizeof(BlockQ5_0) == 22 && sizeof(BlockQ5_1) == 24);
static_assert(sizeof(BlockQ8_0) == 34 && sizeof(BlockQ2_K) == 84 && sizeof(BlockQ3_K) == 110 && sizeof(BlockQ4_K) == 144);
static_assert(sizeof(BlockQ5_K) == 176 && sizeof(BlockQ6_K) == 210 && sizeof(BlockMXFP4) == 17);
static_assert(sizeof(BlockIQ4_NL) == 18 && sizeof(BlockIQ4_XS) == 136 && sizeof(BlockNF4) == 36 && sizeof(BlockF8E4M3) == 68 && sizeof(BlockI4<32>) == 18);
static_assert(sizeof(BlockI8) == 68 && sizeof(BlockNVFP4) == 24 && sizeof(BlockI4<64>) == 34 && sizeof(BlockI4Zero<64>) == 36);
static_assert(sizeof(BlockI4<128>) == 66 && sizeof(BlockI4Zero<32>) == 20 && sizeof(BlockI4Zero<128>) == 68);

// The i-th (scale, minimum) pair of Q4_K and Q5_K, with scales(j) the j-th of 12 bytes: pairs 0-3 lie in the low 6 bits of bytes 0-7; pairs 4-7 have their
// low nibbles in bytes 8-11 and their high pairs in the top bits of bytes 0-7.
template <typename Scales>
GRAFT_BLOCK_FUNCTION void unpack_scale_and_minimum(const Scales& scales, int i, int& scale, int& minimum) {
  if (i < 4) {
    scale = static_cast<int>(scales(i) & 63);
    minimum = static_cast<int>(scales(i + 4) & 63);
  } else {
    scale = static_cast<int>((scales(i + 4) & 15) | (scales(i - 4) >> 6) << 4);
    minimum = static_cast<int>((scales(i + 4) >> 4) | (scales(i) >> 6) << 4);
  }
}

}  // namespace graft
