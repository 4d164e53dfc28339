// RMS norm with a frozen weight: y = x * rsqrt(mean(x^2) + epsilon) * weight (Zhang and Sennrich 2019, arXiv 1910.07467).
// x [N, C] bfloat16 or float32; weight [C] float32; statistics in float32. Gradient: x only.
#pragma once
#include <ATen/core/Tensor.h>

namespace graft {

at::Tensor rms_norm(const at::Tensor& x_NC, const at::Tensor& weight_C, double epsilon);

// Plain ATen, any floating type and device: the specification.
at::Tensor rms_norm_reference(const at::Tensor& x_NC, const at::Tensor& weight_C, double epsilon);

}  // namespace graft
