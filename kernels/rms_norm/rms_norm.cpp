#include "kernels/rms_norm/rms_norm.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "kernels/device_launch/device_launch.h"
#include "kernels/elementwise/typed_rows.h"
#include "kernels/rms_norm/rms_norm_cpu.h"

namespace graft {

at::Tensor rms_norm_reference(const at::Tensor& x_NC, const at::Tensor& weight_C, const NormOptions& options) {
  const auto type = x_NC.scalar_type(), wide = wide_type(type);
  const auto x = x_NC.to(wide);
  auto normed = x * at::rsqrt(x.square().mean(-1, true) + options.epsilon);
  if (options.rounds_before_weight) normed = normed.to(type).to(wide);
  return (normed * weight_C.to(wide)).to(type);
}

namespace {

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& weight, double epsilon) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [y, inverse_rms] = rms_norm_cpu::forward(x, weight, epsilon);
    context->save_for_backward({x, weight, inverse_rms});
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    return {rms_norm_cpu::backward(gradients[0].contiguous(), saved[0], saved[1], saved[2]), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x_NC, const at::Tensor& weight_C, const NormOptions& options) {
  check_norm("rms_norm", x_NC, {}, weight_C);
  if (takes_kernels(x_NC)) return norm_by_kernels(x_NC, {}, weight_C, {}, options).y_NC;
  const bool rounds_once = !options.rounds_before_weight || x_NC.scalar_type() == at::kFloat;
  if (!takes_fast_path(x_NC) || !rounds_once) return rms_norm_reference(x_NC, weight_C, options);
  return RmsNorm::apply(x_NC.contiguous(), weight_C.contiguous(), options.epsilon);
}

NormedSum add_and_rms_norm(const at::Tensor& x_NC, const at::Tensor& residual_NC, const at::Tensor& weight_C, const NormOptions& options) {
  check_norm("add_and_rms_norm", x_NC, residual_NC, weight_C);
  if (takes_kernels(x_NC)) return norm_by_kernels(x_NC, residual_NC, weight_C, {}, options);
  const auto sum_NC = at::add(x_NC, residual_NC);
  return {sum_NC, rms_norm(sum_NC, weight_C, options)};
}

}  // namespace graft
