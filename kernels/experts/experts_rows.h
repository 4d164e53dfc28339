// Row kernels of experts, vectorised by the compiler as those of kernels/elementwise.
#pragma once
#include <cstdint>

#include "kernels/experts/experts.h"

namespace graft {

void activation_row(const ExpertActivation& activation, const float* gate, const float* up, int64_t size, float* y);
void activation_row_backward(const ExpertActivation& activation, const float* gradient, const float* gate, const float* up, int64_t size, float* dgate, float* dup);
void add_scaled_row(float* sum, const float* row, int64_t size, float factor);   // sum += factor * row

}  // namespace graft
