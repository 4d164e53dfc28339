// float32 rows to the stored forms of GGUF, and to blocks of the hub's forms.
//
// Without importance F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K and Q6_K are byte for byte ggml's reference quantisers, so that a file that llama.cpp
// quantised comes back as it was. The other forms, and all but Q8_0 with importance, are searches of our own (scale_search.h) for the least squared error, each
// column's weighted by its importance: the mean square of what the column is multiplied by (an importance matrix), of any magnitude. Of the hub's forms INT4 is such a
// search too; INT8 and FP8 have one scale a row and NF4 its largest value, whatever the importance.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/quantized/tensor_type.h"

namespace graft {

// source: rows x columns float32, row-major; destination: the rows one after the other, bytes_of(type, {rows, columns}) bytes.
// type: F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4 NF4, I4_*, I8_SCALED, F8_E4M3_SCALED. Thread-safe: callers split the rows among threads.
// importance: one number for each column, or empty; F32, F16, BF16, Q8_0, NF4 and scaled bytes do not look at it.
// UserError for another type, for columns that cut a block, for weights that are not finite or, in forms with half-precision scales, not below 65520: they
// would come back as infinity or NaN; and for importances that are negative, not finite or not one for each column.
void quantize(TensorType type, const float* source, int64_t rows, int64_t columns, std::byte* destination, std::span<const float> importance = {});

}  // namespace graft
