// Stored rows to float32 or bfloat16, exactly as ggml's reference dequantisation (float32 arithmetic).
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/quantized/tensor_type.h"

namespace graft {

// source: num_elements of `type` (a whole number of blocks); destination: num_elements values. Thread-safe, allocates nothing.
// Throws UserError for a type that holds no real numbers (I64, BOOL, ...).
void dequantize(TensorType type, const std::byte* source, int64_t num_elements, float* destination);

// As above, rounded to nearest even bfloat16 (bit pattern). For BF16 source it is a copy.
void dequantize_bf16(TensorType type, const std::byte* source, int64_t num_elements, uint16_t* destination);

float half_to_float(uint16_t half);
uint16_t float_to_half(float value);      // round to nearest even
float bf16_to_float(uint16_t bf16);
uint16_t float_to_bf16(float value);      // round to nearest even, NaN stays NaN

}  // namespace graft
