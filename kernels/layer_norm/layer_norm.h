// Layer norm with frozen weight and bias: y = (x - mean) * rsqrt(variance + epsilon) * weight + bias (Ba et al. 2016, arXiv 1607.06450).
// x [N, C] bfloat16 or float32; weight and bias [C] float32; statistics in float32. Gradient: x only.
#pragma once
#include "kernels/norm_rows/norm_by_kernels.h"

namespace graft {

at::Tensor layer_norm(const at::Tensor& x_NC, const at::Tensor& weight_C, const at::Tensor& bias_C, const NormOptions& options);

// x + residual, rounded to their type, and the norm of that; where there are kernels, in one pass. Gradients: x and residual.
NormedSum add_and_layer_norm(const at::Tensor& x_NC, const at::Tensor& residual_NC, const at::Tensor& weight_C, const at::Tensor& bias_C,
                             const NormOptions& options);

// Plain ATen, any floating type and device: the specification, and what the CPU runs.
at::Tensor layer_norm_reference(const at::Tensor& x_NC, const at::Tensor& weight_C, const at::Tensor& bias_C, const NormOptions& options);

}  // namespace graft
