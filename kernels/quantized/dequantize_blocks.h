// Block decoders behind dequantize(), one for each block type and output: from `num_blocks` blocks to rows.
// float: the value of block_decoders.h, ggml's. uint16_t: that value rounded to nearest even bfloat16.
#pragma once
#include <cstdint>

#include "kernels/quantized/block_forms.h"

namespace graft {

#define GRAFT_DECODER(type, Block)                                                 \
  void decode_blocks(const Block* blocks, int64_t num_blocks, float* destination); \
  void decode_blocks(const Block* blocks, int64_t num_blocks, uint16_t* destination);
GRAFT_BLOCK_FORMS(GRAFT_DECODER)
#undef GRAFT_DECODER

}  // namespace graft
