#include "kernels/norm_rows/norm_by_kernels.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/custom_function.h>

#include "kernels/common/error.h"
#include "kernels/device_launch/device_launch.h"
#include "kernels/device_launch/row_type.h"

namespace graft {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

std::string described(const Tensor& x) {
  return fmt::format("{} of sizes [{}] on {}", c10::toString(x.scalar_type()), fmt::join(x.sizes(), ", "), x.device().str());
}

struct NormByKernels : torch::autograd::Function<NormByKernels> {
  // {sum, y}, or {y}.
  static variable_list forward(AutogradContext* context, const Tensor& x_NC, const std::optional<Tensor>& residual_NC, const Tensor& weight_C,
                               const std::optional<Tensor>& bias_C, const NormOptions& options) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const auto x = for_kernels(x_NC), weight = for_kernels(weight_C), residual = residual_NC ? for_kernels(*residual_NC) : Tensor(),
               bias = bias_C ? for_kernels(*bias_C) : Tensor();
    auto sum = residual_NC ? at::empty_like(x) : Tensor(), y = at::empty_like(x), inverse = at::empty({x.size(0)}, x.options().dtype(at::kFloat)),
         mean = bias_C ? at::empty_like(inverse) : Tensor();
    const cuda::NormForward of{x.const_data_ptr(),
                               residual_NC ? residual.const_data_ptr() : nullptr,
                               residual_NC ? sum.data_ptr() : nullptr,
                               weight.const_data_ptr<float>(),
                               y.data_ptr(),
                               inverse.data_ptr<float>(),
                               x.size(0),
                               static_cast<int>(x.size(1)),
                               static_cast<float>(options.epsilon),
                               options.rounds_before_weight,
                               row_type(x)};
    if (bias_C)
      launch_on(x, "layer_norm", cuda::LayerNormForward{of, bias.const_data_ptr<float>(), mean.data_ptr<float>()});
    else
      launch_on(x, "rms_norm", cuda::RmsNormForward{of});
    context->set_materialize_grads(false);   // the sum's gradient, where only y is read
    context->save_for_backward({residual_NC ? sum : x, weight, inverse, mean});
    return residual_NC ? variable_list{sum, y} : variable_list{y};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const bool has_sum = gradients.size() == 2;
    const auto sum_gradient = has_sum && gradients[0].defined() ? for_kernels(gradients[0]) : Tensor();
    auto dx = sum_gradient;
    if (gradients.back().defined()) {
      const auto gradient = for_kernels(gradients.back()), &x = saved[0], &mean = saved[3];
      dx = at::empty_like(x);
      const cuda::NormBackward of{gradient.const_data_ptr(),
                                  sum_gradient.defined() ? sum_gradient.const_data_ptr() : nullptr,
                                  x.const_data_ptr(),
                                  saved[1].const_data_ptr<float>(),
                                  saved[2].const_data_ptr<float>(),
                                  dx.data_ptr(),
                                  x.size(0),
                                  static_cast<int>(x.size(1)),
                                  row_type(x)};
      if (mean.defined())
        launch_on(x, "layer_norm backward", cuda::LayerNormBackward{of, mean.const_data_ptr<float>()});
      else
        launch_on(x, "rms_norm backward", cuda::RmsNormBackward{of});
    }
    return {dx, has_sum ? dx : Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

void check_norm(const char* name, const Tensor& x_NC, const std::optional<Tensor>& residual_NC, const Tensor& weight_C, const std::optional<Tensor>& bias_C) {
  const bool typed = x_NC.scalar_type() == at::kFloat || x_NC.scalar_type() == at::kBFloat16 || (x_NC.scalar_type() == at::kHalf && takes_kernels(x_NC));
  if (x_NC.dim() != 2 || !typed) fail("kernels", "{}: expected x [N, C] in bfloat16 or float32, got {}", name, described(x_NC));
  if (residual_NC && (residual_NC->sizes() != x_NC.sizes() || residual_NC->scalar_type() != x_NC.scalar_type() || residual_NC->device() != x_NC.device())) {
    fail("kernels", "{}: expected a residual as x, {}, got {}", name, described(x_NC), described(*residual_NC));
  }
  const auto check_vector = [&](const char* what, const Tensor& vector) {
    if (vector.dim() != 1 || vector.size(0) != x_NC.size(1) || vector.scalar_type() != at::kFloat || vector.device() != x_NC.device()) {
      fail("kernels", "{}: expected {} in float32 of sizes [{}] on {}, got {}", name, what, x_NC.size(1), x_NC.device().str(), described(vector));
    }
  };
  check_vector("weight", weight_C);
  if (bias_C) check_vector("bias", *bias_C);
}

NormedSum norm_by_kernels(const Tensor& x_NC, const std::optional<Tensor>& residual_NC, const Tensor& weight_C, const std::optional<Tensor>& bias_C,
                          const NormOptions& options) {
  const auto results = NormByKernels::apply(x_NC, residual_NC, weight_C, bias_C, options);
  return {residual_NC ? results.front() : Tensor(), results.back()};
}

}  // namespace graft
