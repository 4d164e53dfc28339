// Stored rows to float32 or bfloat16, exactly as ggml's reference dequantisation (float32 arithmetic).
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/quantized/small_floats.h"  // half_to_float, float_to_half, bf16_to_float, float_to_bf16
#include "kernels/quantized/tensor_type.h"

namespace graft {

// source: num_elements of `type` (a whole number of blocks), at any alignment; destination: num_elements values.
// Thread-safe, allocates nothing, the same bits on every instruction set.
// Throws UserError for a type that holds no real numbers (I64, BOOL, ...) and for a number of elements that cuts a block.
void dequantize(TensorType type, const std::byte* source, int64_t num_elements, float* destination);

// As above, rounded to nearest even bfloat16 (bit pattern). For BF16 source it is a copy.
void dequantize_bf16(TensorType type, const std::byte* source, int64_t num_elements, uint16_t* destination);

}  // namespace graft
