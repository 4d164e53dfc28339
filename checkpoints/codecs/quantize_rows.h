// float32 rows to the hub's forms with codes of 8 bits or FP4, whose scales go beyond a block: a row, a square, the whole tensor.
#pragma once
#include <cstdint>

#include "kernels/quantized/block_layouts.h"

namespace graft {

// One row to blocks that share its scale: the largest magnitude over 127 or 448, rounded up to a bfloat16, so that nothing is cut.
void encode_row(const float* values, int64_t columns, BlockI8* blocks);
void encode_row(const float* values, int64_t columns, BlockF8E4M3* blocks);

// Up to 128 rows, a scale for each 128 columns of all of them.
void encode_squares(const float* values, int64_t rows, int64_t columns, BlockF8E4M3* blocks);

// NVFP4: what the tensor's largest magnitude says of its scales, 448 * 6 / largest (NVIDIA's recipe); 1 for zeros. And a row: each 16 values get the E4M3 scale
// of those around largest / 6 / global_scale with the least weighted error. importance: of each column, or null.
float nvfp4_global_scale(float largest);
void encode_row(const float* values, int64_t columns, float global_scale, const float* importance, BlockNVFP4* blocks);

// The E4M3 code (OCP, fn) nearest to a value, ties to even, 448 beyond it.
uint8_t e4m3_of(float value);

}  // namespace graft
