// A block in global memory as kernels/quantized/block_decoders.h reads it: in the widest accesses that the form's blocks allow (those of Q4_K are 16 bytes
// apart, those of Q4_0 18, those of MXFP4 17).
#pragma once
#include "kernels/cuda/elements.cuh"
#include "kernels/quantized/block_decoders.h"
#include "kernels/quantized_product/quantized_product.cuh"

namespace graft::cuda {

// Of an offset, at most 8; and of that offset in every block of a matrix.
template <int kOffset>
constexpr int kAlignmentOf = kOffset % 8 == 0 ? 8 : kOffset & -kOffset;
template <typename Block, int kOffset>
constexpr int kAlignmentInBlocks = kAlignmentOf<(static_cast<int>(sizeof(Block)) | kOffset)>;

// Bytes in registers, four in each.
template <int kCount>
struct ByteRun {
  uint32_t words[kCount / 4];
  GRAFT_DEVICE int operator[](int i) const { return static_cast<int>(words[i / 4] >> i % 4 * 8 & 255); }
};

template <typename Block>
struct GlobalBlock {
  const unsigned char* bytes;

  GRAFT_DEVICE uint32_t byte(int at) const { return load(bytes + at); }
  template <int kOffset>
  GRAFT_DEVICE float half() const {
    return float_of_float16(two_bytes<kOffset>());
  }
  template <int kOffset>
  GRAFT_DEVICE float bfloat16() const {
    return float_of(static_cast<uint32_t>(two_bytes<kOffset>()) << 16);
  }
  template <int kOffset>
  GRAFT_DEVICE float float32() const {
    return float_of(word<kOffset>());
  }
  template <int kOffset>
  GRAFT_DEVICE uint32_t word() const {
    return run<4, kOffset>(0).words[0];
  }
  template <int kCount, int kOffset>
  GRAFT_DEVICE ByteRun<kCount> run(int at) const {
    static_assert(kCount == 4 || kCount == 8, "one access, or some of what alignment allows");
    constexpr int kAlignment = kAlignmentOf<(kAlignmentInBlocks<Block, kOffset> | kCount)>;
    const unsigned char* from = bytes + kOffset + at;
    ByteRun<kCount> run;
    if constexpr (kAlignment == 8) {
      const auto pair = load(reinterpret_cast<const Pack<uint32_t, 2>*>(from));
      run.words[0] = pair.values[0];
      run.words[1] = pair.values[1];
    } else {
      GRAFT_UNROLL
      for (int i = 0; i < kCount / 4; ++i) {
        if constexpr (kAlignment >= 4) {
          run.words[i] = load(reinterpret_cast<const uint32_t*>(from) + i);
        } else if constexpr (kAlignment == 2) {
          const auto* halves = reinterpret_cast<const uint16_t*>(from) + 2 * i;
          run.words[i] = load(halves) | static_cast<uint32_t>(load(halves + 1)) << 16;
        } else {
          const auto* single = from + 4 * i;
          run.words[i] = load(single) | static_cast<uint32_t>(load(single + 1)) << 8 | static_cast<uint32_t>(load(single + 2)) << 16 | static_cast<uint32_t>(load(single + 3)) << 24;
        }
      }
    }
    return run;
  }
  GRAFT_DEVICE static float float_of(uint32_t bits) { return cuda::float_of(bits); }
  GRAFT_DEVICE static uint32_t bits_of(float value) { return cuda::bits_of(value); }
  GRAFT_DEVICE static float product(float a, float b) { return rounded_product(a, b); }

 private:
  template <int kOffset>
  GRAFT_DEVICE uint16_t two_bytes() const {
    static_assert(kAlignmentInBlocks<Block, kOffset> >= 2, "scales of 16 bits lie at even bytes");
    return load(reinterpret_cast<const uint16_t*>(bytes + kOffset));
  }
};

// Elements that a thread decodes at once: they share a scale, and are a pack of 16 bytes in 16-bit types.
constexpr int kDecoded = 8;

// values = elements [element, element + kDecoded) of the matrix, counted along its rows.
template <typename Block>
GRAFT_DEVICE void decode_elements(const QuantizedMatrix& matrix, int64_t element, float (&values)[kDecoded]) {
  const auto* blocks = static_cast<const unsigned char*>(matrix.blocks);
  const GlobalBlock<Block> block{blocks + element / Block::kElements * static_cast<int64_t>(sizeof(Block))};
  BlockDecoder<Block>::template decode<kDecoded>(block, static_cast<int>(element % Block::kElements), values);
}

// put(k, pack) with the values rounded to Element, in packs of 16 bytes from element k on.
template <typename Element, typename Function>
GRAFT_DEVICE void for_rounded_packs(const float (&values)[kDecoded], const Function& put) {
  constexpr int kPack = kWidestPack<Element>;
  GRAFT_UNROLL
  for (int first = 0; first < kDecoded; first += kPack) {
    Pack<Element, kPack> pack;
    GRAFT_UNROLL
    for (int k = 0; k < kPack; ++k) pack.values[k] = from_float<Element>(values[first + k]);
    put(first, pack);
  }
}

}  // namespace graft::cuda
