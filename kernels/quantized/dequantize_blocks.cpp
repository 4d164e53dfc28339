// The loops of block_decoders.h over whole blocks, so that the compiler vectorises them: fixed trip counts of 16 or 32, no branches, one scale each.
#include "kernels/quantized/dequantize_blocks.h"

#include "kernels/quantized/host_block.h"
#include "kernels/quantized/round_to_bf16.h"
#include "kernels/quantized/simd_clones.h"

namespace graft {
namespace {

template <typename Block>
GRAFT_INLINE_IN_CLONES void decode(const Block& block, float* __restrict out) {
  const HostBlock bytes{reinterpret_cast<const uint8_t*>(&block)};
#pragma GCC unroll 16
  for (int first = 0; first < Block::kElements; first += kBlockRun<Block>) BlockDecoder<Block>::template decode<kBlockRun<Block>>(bytes, first, out + first);
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
    round_to_bf16(values, count * Block::kElements, destination + first * Block::kElements);
  }
}

}  // namespace

// target_clones needs plain functions, hence two for each type.
#define GRAFT_DECODER(type, Block)                                                                                                                            \
  GRAFT_SIMD_CLONES void decode_blocks(const Block* blocks, int64_t num_blocks, float* destination) { decode_all(blocks, num_blocks, destination); } \
  GRAFT_SIMD_CLONES void decode_blocks(const Block* blocks, int64_t num_blocks, uint16_t* destination) { decode_all(blocks, num_blocks, destination); }
GRAFT_BLOCK_FORMS(GRAFT_DECODER)
#undef GRAFT_DECODER

}  // namespace graft
