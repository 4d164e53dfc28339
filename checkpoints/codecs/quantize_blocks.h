// The block encoders behind quantize(): one block's elements to one block.
#pragma once
#include "kernels/quantized/block_layouts.h"

namespace graft {

// ggml's bytes.
void encode(const float* values, BlockQ4_0& block);
void encode(const float* values, BlockQ4_1& block);
void encode(const float* values, BlockQ5_0& block);
void encode(const float* values, BlockQ5_1& block);
void encode(const float* values, BlockQ8_0& block);
void encode(const float* values, BlockQ4_K& block);
void encode(const float* values, BlockQ5_K& block);
void encode(const float* values, BlockQ6_K& block);

// Searches of our own (scale_search.h). `importance` weighs the squared errors, one number for each element; null: all alike.
void encode(const float* values, const float* importance, BlockQ4_0& block);
void encode(const float* values, const float* importance, BlockQ4_1& block);
void encode(const float* values, const float* importance, BlockQ5_0& block);
void encode(const float* values, const float* importance, BlockQ5_1& block);
void encode(const float* values, const float* importance, BlockMXFP4& block);
void encode(const float* values, const float* importance, BlockIQ4_NL& block);
void encode(const float* values, const float* importance, BlockQ2_K& block);
void encode(const float* values, const float* importance, BlockQ3_K& block);
void encode(const float* values, const float* importance, BlockQ4_K& block);
void encode(const float* values, const float* importance, BlockQ5_K& block);
void encode(const float* values, const float* importance, BlockQ6_K& block);
void encode(const float* values, const float* importance, BlockIQ4_XS& block);
void encode(const float* values, const float* importance, BlockI4<32>& block);   // with a scale that bfloat16 and float16 hold, also below
void encode(const float* values, const float* importance, BlockI4<64>& block);
void encode(const float* values, const float* importance, BlockI4<128>& block);
void encode(const float* values, const float* importance, BlockI4Zero<32>& block);
void encode(const float* values, const float* importance, BlockI4Zero<64>& block);
void encode(const float* values, const float* importance, BlockI4Zero<128>& block);

// bitsandbytes' bytes: the largest magnitude, and the nearest of NF4's values.
void encode(const float* values, BlockNF4& block);

}  // namespace graft
