// The CPU path of rms_norm, without gradients by autograd. Contiguous tensors.
#pragma once
#include <tuple>

#include <ATen/core/Tensor.h>

namespace graft::rms_norm_cpu {

// y and inverse_rms [N], float32.
std::tuple<at::Tensor, at::Tensor> forward(const at::Tensor& x_NC, const at::Tensor& weight_C, double epsilon);
at::Tensor backward(const at::Tensor& gradient_NC, const at::Tensor& x_NC, const at::Tensor& weight_C, const at::Tensor& inverse_rms_N);

}  // namespace graft::rms_norm_cpu
