// Block decoders behind dequantize(): one function per block type and output, from `num_blocks` blocks to rows.
// float: ggml's reference value. uint16_t: that value rounded to nearest even bfloat16.
#pragma once
#include <cstdint>

#include "kernels/quantized/block_layouts.h"

namespace graft {

void decode_q4_0(const BlockQ4_0* blocks, int64_t num_blocks, float* destination);
void decode_q4_1(const BlockQ4_1* blocks, int64_t num_blocks, float* destination);
void decode_q5_0(const BlockQ5_0* blocks, int64_t num_blocks, float* destination);
void decode_q5_1(const BlockQ5_1* blocks, int64_t num_blocks, float* destination);
void decode_q8_0(const BlockQ8_0* blocks, int64_t num_blocks, float* destination);
void decode_q2_k(const BlockQ2_K* blocks, int64_t num_blocks, float* destination);
void decode_q3_k(const BlockQ3_K* blocks, int64_t num_blocks, float* destination);
void decode_q4_k(const BlockQ4_K* blocks, int64_t num_blocks, float* destination);
void decode_q5_k(const BlockQ5_K* blocks, int64_t num_blocks, float* destination);
void decode_q6_k(const BlockQ6_K* blocks, int64_t num_blocks, float* destination);
void decode_mxfp4(const BlockMXFP4* blocks, int64_t num_blocks, float* destination);

void decode_q4_0(const BlockQ4_0* blocks, int64_t num_blocks, uint16_t* destination);
void decode_q4_1(const BlockQ4_1* blocks, int64_t num_blocks, uint16_t* destination);
void decode_q5_0(const BlockQ5_0* blocks, int64_t num_blocks, uint16_t* destination);
void decode_q5_1(const BlockQ5_1* blocks, int64_t num_blocks, uint16_t* destination);
void decode_q8_0(const BlockQ8_0* blocks, int64_t num_blocks, uint16_t* destination);
void decode_q2_k(const BlockQ2_K* blocks, int64_t num_blocks, uint16_t* destination);
void decode_q3_k(const BlockQ3_K* blocks, int64_t num_blocks, uint16_t* destination);
void decode_q4_k(const BlockQ4_K* blocks, int64_t num_blocks, uint16_t* destination);
void decode_q5_k(const BlockQ5_K* blocks, int64_t num_blocks, uint16_t* destination);
void decode_q6_k(const BlockQ6_K* blocks, int64_t num_blocks, uint16_t* destination);
void decode_mxfp4(const BlockMXFP4* blocks, int64_t num_blocks, uint16_t* destination);

}  // namespace graft
