#include "kernels/rms_norm/rms_norm.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "kernels/common/error.h"
#include "kernels/device_launch/device_launch.h"
#include "kernels/elementwise/typed_rows.h"
#include "kernels/rms_norm/rms_norm_cpu.h"

namespace graft {

at::Tensor rms_norm_reference(const at::Tensor& x_NC, const at::Tensor& weight_C, double epsilon) {
  const auto x = x_NC.to(wide_type(x_NC.scalar_type()));
  return (x * at::rsqrt(x.square().mean(-1, true) + epsilon) * weight_C.to(x.scalar_type())).to(x_NC.scalar_type());
}

namespace {

cuda::RowType row_type(const at::Tensor& x) { return x.scalar_type() == at::kFloat ? cuda::RowType::kFloat32 : cuda::RowType::kBfloat16; }

std::tuple<at::Tensor, at::Tensor> forward_by_kernel(const at::Tensor& x_NC, const at::Tensor& weight_C, double epsilon) {
  const auto x = for_kernels(x_NC), weight = for_kernels(weight_C);
  auto y = at::empty_like(x);
  auto inverse_rms = at::empty({x.size(0)}, x.options().dtype(at::kFloat));
  launch_on(x, "rms_norm", cuda::RmsNormForward{x.const_data_ptr(), weight.const_data_ptr<float>(), y.data_ptr(), inverse_rms.data_ptr<float>(), x.size(0),
                                                static_cast<int>(x.size(1)), static_cast<float>(epsilon), row_type(x)});
  return {y, inverse_rms};
}

at::Tensor backward_by_kernel(const at::Tensor& gradient_NC, const at::Tensor& x_NC, const at::Tensor& weight_C, const at::Tensor& inverse_rms_N) {
  const auto gradient = for_kernels(gradient_NC), x = for_kernels(x_NC), weight = for_kernels(weight_C);
  auto dx = at::empty_like(x);
  launch_on(x, "rms_norm", cuda::RmsNormBackward{gradient.const_data_ptr(), x.const_data_ptr(), weight.const_data_ptr<float>(), inverse_rms_N.const_data_ptr<float>(), dx.data_ptr(),
                                                 x.size(0), static_cast<int>(x.size(1)), row_type(x)});
  return dx;
}

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& weight, double epsilon) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [y, inverse_rms] = takes_kernels(x) ? forward_by_kernel(x, weight, epsilon) : rms_norm_cpu::forward(x, weight, epsilon);
    context->save_for_backward({x, weight, inverse_rms});
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto gradient = gradients[0].contiguous();
    return {takes_kernels(gradient) ? backward_by_kernel(gradient, saved[0], saved[1], saved[2]) : rms_norm_cpu::backward(gradient, saved[0], saved[1], saved[2]), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x_NC, const at::Tensor& weight_C, double epsilon) {
  if (x_NC.dim() != 2 || weight_C.dim() != 1 || x_NC.size(1) != weight_C.size(0)) {
    fail("kernels", "rms_norm: expected x [N, C] and weight [C], got {} and {} dimensions of sizes {} and {}", x_NC.dim(), weight_C.dim(),
         x_NC.size(-1), weight_C.size(-1));
  }
  if (weight_C.scalar_type() != at::kFloat || (x_NC.scalar_type() != at::kFloat && x_NC.scalar_type() != at::kBFloat16)) {
    fail("kernels", "rms_norm: expected x in bfloat16 or float32 and weight in float32, got {} and {}", c10::toString(x_NC.scalar_type()),
         c10::toString(weight_C.scalar_type()));
  }
  if (!takes_kernels(x_NC) && !takes_fast_path(x_NC)) return rms_norm_reference(x_NC, weight_C, epsilon);
  return RmsNorm::apply(x_NC.contiguous(), weight_C.contiguous(), epsilon);
}

}  // namespace graft
