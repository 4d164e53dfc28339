// float32 rows to the stored forms of GGUF, byte for byte as ggml's reference quantisers without an importance matrix.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/quantized/tensor_type.h"

namespace graft {

// source: rows x columns float32, row-major; destination: the rows one after the other, bytes_of(type, {rows, columns}) bytes.
// type: F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q4_K Q5_K Q6_K. Thread-safe: callers split the rows among threads.
// UserError for another type, for columns that cut a block, and for weights that are not finite or, in forms with
// half-precision scales, not below 65520: they would come back as infinity or NaN.
void quantize(TensorType type, const float* source, int64_t rows, int64_t columns, std::byte* destination);

}  // namespace graft
