// float32 to bfloat16, to nearest, ties to even; NaN stays NaN.
#pragma once
#include <cstdint>

namespace graft {

// The same bits on all machines.
void round_to_bf16(const float* source, int64_t size, uint16_t* destination);

}  // namespace graft
