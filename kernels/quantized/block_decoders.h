// What the codes of a block mean, for every form: one source for host and device code (C++17, arithmetic only, in ggml's order, so that both have the same
// bits). BlockDecoder<Block>::decode<kCount>(block, first, values) gives the kCount elements from `first` on, a multiple of kCount; that is a power of two,
// at most kBlockRun<Block>.
//
// `block` says how a block's bytes are read (HostBlock of host_block.h; GlobalBlock of device code), with `first`, `at` in elements or bytes of the block:
//   byte(at), half<kOffset>(), bfloat16<kOffset>(), float32<kOffset>(), word<kOffset>()     a number that begins at a byte
//   run<kCount, kOffset>(at)[i]                        kCount bytes behind kOffset + at, which is a multiple of kCount behind kOffset
//   float_of(bits), bits_of(value), product(a, b)      a product rounded by itself, whatever is added to it
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/quantized/block_layouts.h"

namespace graft {

// The longest run of elements that lie alike and share a scale: 16 where scales have 16 elements, or where nibbles or bits are laid out in halves of 16.
template <typename Block>
inline constexpr int kBlockRun = 16;
template <>
inline constexpr int kBlockRun<BlockQ8_0> = 32;
template <>
inline constexpr int kBlockRun<BlockQ4_K> = 32;
template <>
inline constexpr int kBlockRun<BlockQ5_K> = 32;
template <>
inline constexpr int kBlockRun<BlockF8E4M3> = 32;
template <>
inline constexpr int kBlockRun<BlockI8> = 32;

// What IQ4_NL's codes stand for, and NF4's, as bitsandbytes stores them: quantiles of a normal distribution.
GRAFT_BLOCK_FUNCTION float non_linear_4(int code) {
  static constexpr float kValues[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
  return kValues[code];
}
GRAFT_BLOCK_FUNCTION float twice_e2m1(int code) {
  static constexpr float kValues[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  return kValues[code];
}
GRAFT_BLOCK_FUNCTION float normal_float_4(int code) {
  static constexpr float kValues[16] = {-1.0F, -0.6961928009986877F, -0.5250730514526367F, -0.39491748809814453F, -0.28444138169288635F, -0.18477343022823334F,
                                        -0.09105003625154495F, 0.0F, 0.07958029955625534F, 0.16093020141124725F, 0.24611230194568634F, 0.33791524171829224F,
                                        0.44070982933044434F, 0.5626170039176941F, 0.7229568362236023F, 1.0F};
  return kValues[code];
}

// E4M3 as in the OCP 8-bit formats (fn): bias 7, no infinity, all ones is NaN.
template <typename Bytes>
GRAFT_BLOCK_FUNCTION float float_of_e4m3(uint32_t code) {
  const uint32_t sign = (code & 0x80) << 24, normal = ((code & 0x7f) << 20) + (120U << 23);
  const uint32_t small = Bytes::bits_of(Bytes::float_of(normal + (1U << 23)) - 0.015625F);   // given the implicit bit of 2^-6, which is taken away again
  const uint32_t bits = (code & 0x78) == 0 ? small : (code & 0x7f) == 0x7f ? 0x7fc00000U : normal;
  return Bytes::float_of(bits | sign);
}

// values[l] = value(code, l) of codes of four bits from element `first` on, whose bytes begin at kOffset: 32 elements in 16 bytes, in halves.
template <int kCount, int kOffset, typename Bytes, typename Function>
GRAFT_BLOCK_FUNCTION void decode_nibbles(const Bytes& block, int first, float* __restrict values, const Function& value) {
  const auto bytes = block.template run<kCount, kOffset>(first / 32 * 16 + first % 16);
  const int shift = first % 32 / 16 * 4;
  GRAFT_BLOCK_UNROLL
  for (int l = 0; l < kCount; ++l) values[l] = value(bytes[l] >> shift & 15, l);
}

// The same of codes of a byte each: kCount from element `first` on.
template <int kCount, int kOffset, typename Bytes, typename Function>
GRAFT_BLOCK_FUNCTION void decode_bytes(const Bytes& block, int first, float* __restrict values, const Function& value) {
  const auto bytes = block.template run<kCount, kOffset>(first);
  GRAFT_BLOCK_UNROLL
  for (int l = 0; l < kCount; ++l) values[l] = value(bytes[l]);
}

template <typename Block>
struct BlockDecoder;

template <>
struct BlockDecoder<BlockQ4_0> {
  template <int kCount, typename Bytes>
  GRAFT_BLOCK_FUNCTION static void decode(const Bytes& block, int first, float* __restrict values) {
    const float scale = block.template half<offsetof(BlockQ4_0, scale)>();
    decode_nibbles<kCount, offsetof(BlockQ4_0, nibbles)>(block, first, values, [&](int code, int) { return static_cast<float>(code - 8) * scale; });
  }
};

template <>
struct BlockDecoder<BlockQ4_1> {
  template <int kCount, typename Bytes>
  GRAFT_BLOCK_FUNCTION static void decode(const Bytes& block, int first, float* __restrict values) {
    const float scale = block.template half<offsetof(BlockQ4_1, scale)>(), minimum = block.template half<offsetof(BlockQ4_1, minimum)>();
    decode_nibbles<kCount, offsetof(BlockQ4_1, nibbles)>(block, first, values, [&](int code, int) { return Bytes::product(static_cast<float>(code), scale) + minimum; });
  }
};

template <>
struct BlockDecoder<BlockQ5_0> {
  template <int kCount, typename Bytes>
  GRAFT_BLOCK_FUNCTION static void decode(const Bytes& block, int first, float* __restrict values) {
    const float scale = block.template half<offsetof(BlockQ5_0, scale)>();
    const int fifth_bits = static_cast<int>(block.template word<offsetof(BlockQ5_0, fifth_bits)>() >> first);
    decode_nibbles<kCount, offsetof(BlockQ5_0, nibbles)>(block, first, values, [&](int code, int l) { return static_cast<float>((code | (fifth_bits >> l & 1) << 4) - 16) * scale; });
  }
};

template <>
struct BlockDecoder<BlockQ5_1> {
  template <int kCount, typename Bytes>
  GRAFT_BLOCK_FUNCTION static void decode(const Bytes& block, int first, float* __restrict values) {
    const float scale = block.template half<offsetof(BlockQ5_1, scale)>(), minimum = block.template half<offsetof(BlockQ5_1, minimum)>();
    const int fifth_bits = static_cast<int>(block.template word<offsetof(BlockQ5_1, fifth_bits)>() >> first);
    decode_nibbles<kCount, offsetof(BlockQ5_1, nibbles)>(block, first, values, [&](int code, int l) { return Bytes::product(static_cast<float>(code | (fifth_bits >> l & 1) << 4), scale) + minimum; });
  }
};

template <>
struct BlockDecoder<BlockQ8_0> {
  template <int kCount, typename Bytes>
  GRAFT_BLOCK_FUNCTION static void decode(const Bytes& block, int first, float* __restrict values) {
    const float scale = block.template half<offsetof(BlockQ8_0, scale)>();
    decode_bytes<kCount, offsetof(BlockQ8_0, codes)>(block, first, values, [&](int code) { return static_cast<float>(static_cast<int8_t>(code)) * scale; });
  }
};

// Twice the values of a float with two exponent bits and one of mantissa, and half the scale: 2^(exponent - 128), the two smallest of them denormal.
template <>
struct BlockDecoder<BlockMXFP4> {
  template <int kCount, typename Bytes>
  GRAFT_BLOCK_FUNCTION static void decode(const Bytes& block, int first, float* __restrict values) {
    const uint32_t exponent = block.byte(offsetof(BlockMXFP4, exponent));
    const float scale = Bytes::float_of(exponent < 2 ? 0x00200000U << exponent : (exponent - 1) << 23);
    decode_nibbles<kCount, offsetof(BlockMXFP4, nibbles)>(block, first, values, [&](int code, int) { return twice_e2m1(code) * scale; });
  }
};

template <>
struct BlockDecoder<BlockIQ4_NL> {
  template <int kCount, typename Bytes>
  GRAFT_BLOCK_FUNCTION static void decode(const Bytes& block, int first, float* __restrict values) {
    const float scale = block.template half<offsetof(BlockIQ4_NL, scale)>();
    decode_nibbles<kCount, offsetof(BlockIQ4_NL, nibbles)>(block, first, values, [&](int code, int) { return scale * non_linear_4(code); });
  }
};

template <>
struct BlockDecoder<BlockIQ4_XS> {
  template <int kCount, typename Bytes>
  GRAFT_BLOCK_FUNCTION static void decode(const Bytes& block, int first, float* __restrict values) {
    const int sub = first / 32;
    const int low = static_cast<int>(block.byte(static_cast<int>(offsetof(BlockIQ4_XS, low_nibbles)) + sub / 2)) >> sub % 2 * 4 & 15;
    const int high = static_cast<int>(block.byte(static_cast<int>(offsetof(BlockIQ4_XS, high_pairs)) + sub / 4)) >> sub % 4 * 2 & 3;
    const float scale = block.template half<offsetof(BlockIQ4_XS, scale)>() * static_cast<float>((low | high << 4) - 32);
    decode_nibbles<kCount, offsetof(BlockIQ4_XS, nibbles)>(block, first, values, [&](int code, int) { return scale * non_linear_4(code); });
  }
};

template <>
struct BlockDecoder<BlockNF4> {
  template <int kCount, typename Bytes>
  GRAFT_BLOCK_FUNCTION static void decode(const Bytes& block, int first, float* __restrict values) {
    const float scale = block.template float32<offsetof(BlockNF4, scale)>();
    decode_nibbles<kCount, offsetof(BlockNF4, nibbles)>(block, first, values, [&](int code, int) { return normal_float_4(code) * scale; });
  }
};

template <>
struct BlockDecoder<BlockF8E4M3> {
  template <int kCount, typename Bytes>
  GRAFT_BLOCK_FUNCTION static void decode(const Bytes& block, int first, float* __restrict values) {
    const float scale = block.template float32<offsetof(BlockF8E4M3, scale)>();
    decode_bytes<kCount, offsetof(BlockF8E4M3, codes)>(block, first, values, [&](int code) { return float_of_e4m3<Bytes>(static_cast<uint32_t>(code)) * scale; });
  }
};

template <>
struct BlockDecoder<BlockI8> {
  template <int kCount, typename Bytes>
  GRAFT_BLOCK_FUNCTION static void decode(const Bytes& block, int first, float* __restrict values) {
    const float scale = block.template float32<offsetof(BlockI8, scale)>();
    decode_bytes<kCount, offsetof(BlockI8, codes)>(block, first, values, [&](int code) { return static_cast<float>(static_cast<int8_t>(code)) * scale; });
  }
};

// Half of twice the value is exact, so that the product rounds as that of e2m1 itself.
template <>
struct BlockDecoder<BlockNVFP4> {
  template <int kCount, typename Bytes>
  GRAFT_BLOCK_FUNCTION static void decode(const Bytes& block, int first, float* __restrict values) {
    const float low = block.template float32<offsetof(BlockNVFP4, scales)>(), high = block.template float32<offsetof(BlockNVFP4, scales) + sizeof(float)>();
    const float scale = first < 16 ? low : high;
    decode_nibbles<kCount, offsetof(BlockNVFP4, nibbles)>(block, first, values, [&](int code, int) { return twice_e2m1(code) * 0.5F * scale; });
  }
};

template <int kGroup>
struct BlockDecoder<BlockI4<kGroup>> {
  using Block = BlockI4<kGroup>;
  template <int kCount, typename Bytes>
  GRAFT_BLOCK_FUNCTION static void decode(const Bytes& block, int first, float* __restrict values) {
    const float scale = block.template bfloat16<offsetof(Block, scale)>();
    decode_nibbles<kCount, offsetof(Block, nibbles)>(block, first, values, [&](int code, int) { return static_cast<float>(code - 8) * scale; });
  }
};

template <int kGroup>
struct BlockDecoder<BlockI4Zero<kGroup>> {
  using Block = BlockI4Zero<kGroup>;
  template <int kCount, typename Bytes>
  GRAFT_BLOCK_FUNCTION static void decode(const Bytes& block, int first, float* __restrict values) {
    const uint32_t both = block.template word<offsetof(Block, scale_and_zero)>();
    const float scale = Bytes::float_of(both & 0xffffff00U);
    const int zero = static_cast<int>(both & 255);
    decode_nibbles<kCount, offsetof(Block, nibbles)>(block, first, values, [&](int code, int) { return static_cast<float>(code - zero) * scale; });
  }
};

template <>
struct BlockDecoder<BlockQ2_K> {
  template <int kCount, typename Bytes>
  GRAFT_BLOCK_FUNCTION static void decode(const Bytes& block, int first, float* __restrict values) {
    const int sub = first / 16, shift = sub % 8 / 2 * 2;
    const int packed = static_cast<int>(block.byte(static_cast<int>(offsetof(BlockQ2_K, scales)) + sub));
    const float scale = block.template half<offsetof(BlockQ2_K, scale)>() * static_cast<float>(packed & 15);
    const float minimum = block.template half<offsetof(BlockQ2_K, minimum)>() * static_cast<float>(packed >> 4);
    const auto codes = block.template run<kCount, offsetof(BlockQ2_K, codes)>(first / 128 * 32 + first % 32);
    GRAFT_BLOCK_UNROLL
    for (int l = 0; l < kCount; ++l) values[l] = Bytes::product(scale, static_cast<float>(codes[l] >> shift & 3)) - minimum;
  }
};

template <>
struct BlockDecoder<BlockQ3_K> {
  template <int kCount, typename Bytes>
  GRAFT_BLOCK_FUNCTION static void decode(const Bytes& block, int first, float* __restrict values) {
    constexpr int kScales = offsetof(BlockQ3_K, scales);
    const int sub = first / 16, shift = sub % 8 / 2 * 2, third = sub / 2;
    const int low = static_cast<int>(block.byte(kScales + sub % 8)) >> sub / 8 * 4 & 15;
    const int high = static_cast<int>(block.byte(kScales + 8 + sub % 4)) >> sub / 4 * 2 & 3;
    const float scale = block.template half<offsetof(BlockQ3_K, scale)>() * static_cast<float>((low | high << 4) - 32);
    const auto codes = block.template run<kCount, offsetof(BlockQ3_K, codes)>(first / 128 * 32 + first % 32);
    const auto third_bits = block.template run<kCount, offsetof(BlockQ3_K, third_bits)>(first % 32);
    GRAFT_BLOCK_UNROLL
    for (int l = 0; l < kCount; ++l) values[l] = scale * static_cast<float>(((codes[l] >> shift & 3) | (third_bits[l] >> third & 1) << 2) - 4);
  }
};

// Scale and minimum of a sub-block of Q4_K or Q5_K.
template <typename Block, typename Bytes>
GRAFT_BLOCK_FUNCTION void decode_sub_scale(const Bytes& block, int sub, float& scale, float& minimum) {
  int sub_scale, sub_minimum;
  unpack_scale_and_minimum([&](int i) { return block.byte(static_cast<int>(offsetof(Block, scales)) + i); }, sub, sub_scale, sub_minimum);
  scale = block.template half<offsetof(Block, scale)>() * static_cast<float>(sub_scale);
  minimum = block.template half<offsetof(Block, minimum)>() * static_cast<float>(sub_minimum);
}

template <>
struct BlockDecoder<BlockQ4_K> {
  template <int kCount, typename Bytes>
  GRAFT_BLOCK_FUNCTION static void decode(const Bytes& block, int first, float* __restrict values) {
    float scale, minimum;
    decode_sub_scale<BlockQ4_K>(block, first / 32, scale, minimum);
    const auto bytes = block.template run<kCount, offsetof(BlockQ4_K, nibbles)>(first / 64 * 32 + first % 32);
    const int shift = first % 64 / 32 * 4;
    GRAFT_BLOCK_UNROLL
    for (int l = 0; l < kCount; ++l) values[l] = Bytes::product(scale, static_cast<float>(bytes[l] >> shift & 15)) - minimum;
  }
};

template <>
struct BlockDecoder<BlockQ5_K> {
  template <int kCount, typename Bytes>
  GRAFT_BLOCK_FUNCTION static void decode(const Bytes& block, int first, float* __restrict values) {
    float scale, minimum;
    decode_sub_scale<BlockQ5_K>(block, first / 32, scale, minimum);
    const auto bytes = block.template run<kCount, offsetof(BlockQ5_K, nibbles)>(first / 64 * 32 + first % 32);
    const auto fifth_bits = block.template run<kCount, offsetof(BlockQ5_K, fifth_bits)>(first % 32);
    const int shift = first % 64 / 32 * 4, fifth = first / 32;
    GRAFT_BLOCK_UNROLL
    for (int l = 0; l < kCount; ++l) {
      const int code = (bytes[l] >> shift & 15) | (fifth_bits[l] >> fifth & 1) << 4;
      values[l] = Bytes::product(scale, static_cast<float>(code)) - minimum;
    }
  }
};

template <>
struct BlockDecoder<BlockQ6_K> {
  template <int kCount, typename Bytes>
  GRAFT_BLOCK_FUNCTION static void decode(const Bytes& block, int first, float* __restrict values) {
    const auto sub_scale = static_cast<int8_t>(block.byte(static_cast<int>(offsetof(BlockQ6_K, scales)) + first / 16));
    const float scale = block.template half<offsetof(BlockQ6_K, scale)>() * static_cast<float>(sub_scale);
    const auto low = block.template run<kCount, offsetof(BlockQ6_K, low_nibbles)>(first / 128 * 64 + first % 64);
    const auto high = block.template run<kCount, offsetof(BlockQ6_K, high_pairs)>(first / 128 * 32 + first % 32);
    const int low_shift = first % 128 / 64 * 4, high_shift = first % 128 / 32 * 2;
    GRAFT_BLOCK_UNROLL
    for (int l = 0; l < kCount; ++l) values[l] = scale * static_cast<float>(((low[l] >> low_shift & 15) | (high[l] >> high_shift & 3) << 4) - 32);
  }
};

}  // namespace graft
