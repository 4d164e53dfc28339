// RMS norm with a frozen weight: y = x * rsqrt(mean(x^2) + epsilon) * weight (Zhang and Sennrich 2019, arXiv 1910.07467).
// x [N, C] bfloat16 or float32; weight [C] float32, as it multiplies (1 + w in families that store w); statistics in float32. Gradient: x only.
#pragma once
#include "kernels/norm_rows/norm_by_kernels.h"

namespace graft {

at::Tensor rms_norm(const at::Tensor& x_NC, const at::Tensor& weight_C, const NormOptions& options);
inline at::Tensor rms_norm(const at::Tensor& x_NC, const at::Tensor& weight_C, double epsilon) { return rms_norm(x_NC, weight_C, NormOptions{epsilon}); }

// x + residual, rounded to their type, and the norm of that; where there are kernels, in one pass. Gradients: x and residual.
NormedSum add_and_rms_norm(const at::Tensor& x_NC, const at::Tensor& residual_NC, const at::Tensor& weight_C, const NormOptions& options);

// Plain ATen, any floating type and device: the specification.
at::Tensor rms_norm_reference(const at::Tensor& x_NC, const at::Tensor& weight_C, const NormOptions& options);
inline at::Tensor rms_norm_reference(const at::Tensor& x_NC, const at::Tensor& weight_C, double epsilon) {
  return rms_norm_reference(x_NC, weight_C, NormOptions{epsilon});
}

}  // namespace graft
