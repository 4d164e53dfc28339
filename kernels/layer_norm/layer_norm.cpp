#include "kernels/layer_norm/layer_norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/add.h>
#include <ATen/ops/layer_norm.h>

#include "kernels/device_launch/device_launch.h"
#include "kernels/elementwise/typed_rows.h"

namespace graft {

at::Tensor layer_norm_reference(const at::Tensor& x_NC, const at::Tensor& weight_C, const at::Tensor& bias_C, const NormOptions& options) {
  const auto type = x_NC.scalar_type(), wide = wide_type(type);
  if (!options.rounds_before_weight) return at::layer_norm(x_NC.to(wide), {x_NC.size(-1)}, weight_C.to(wide), bias_C.to(wide), options.epsilon).to(type);
  const auto normed = at::layer_norm(x_NC.to(wide), {x_NC.size(-1)}, {}, {}, options.epsilon).to(type).to(wide);
  return (normed * weight_C.to(wide) + bias_C.to(wide)).to(type);
}

at::Tensor layer_norm(const at::Tensor& x_NC, const at::Tensor& weight_C, const at::Tensor& bias_C, const NormOptions& options) {
  check_norm("layer_norm", x_NC, {}, weight_C, bias_C);
  if (takes_kernels(x_NC)) return norm_by_kernels(x_NC, {}, weight_C, bias_C, options).y_NC;
  return layer_norm_reference(x_NC, weight_C, bias_C, options);
}

NormedSum add_and_layer_norm(const at::Tensor& x_NC, const at::Tensor& residual_NC, const at::Tensor& weight_C, const at::Tensor& bias_C,
                             const NormOptions& options) {
  check_norm("add_and_layer_norm", x_NC, residual_NC, weight_C, bias_C);
  if (takes_kernels(x_NC)) return norm_by_kernels(x_NC, residual_NC, weight_C, bias_C, options);
  const auto sum_NC = at::add(x_NC, residual_NC);
  return {sum_NC, layer_norm_reference(sum_NC, weight_C, bias_C, options)};
}

}  // namespace graft
