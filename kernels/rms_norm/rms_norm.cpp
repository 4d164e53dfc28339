#include "kernels/rms_norm/rms_norm.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "kernels/common/error.h"
#include "kernels/common/operator_path.h"
#include "kernels/elementwise/typed_rows.h"

namespace graft {

at::Tensor rms_norm_reference(const at::Tensor& x_NC, const at::Tensor& weight_C, double epsilon) {
  const auto x = x_NC.to(wide_type(x_NC.scalar_type()));
  return (x * at::rsqrt(x.square().mean(-1, true) + epsilon) * weight_C.to(x.scalar_type())).to(x_NC.scalar_type());
}

namespace {

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const at::Tensor& weight, double epsilon) {
    static const auto forward_op = c10::Dispatcher::singleton()
                                       .findSchemaOrThrow("graft::rms_norm_forward", "")
                                       .typed<std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&, double)>();
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [y, inverse_rms] = forward_op.call(x, weight, epsilon);
    context->save_for_backward({x, weight, inverse_rms});
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, torch::autograd::variable_list gradients) {
    static const auto backward_op =
        c10::Dispatcher::singleton()
            .findSchemaOrThrow("graft::rms_norm_backward", "")
            .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&)>();
    const auto saved = context->get_saved_variables();
    return {backward_op.call(gradients[0].contiguous(), saved[0], saved[1], saved[2]), at::Tensor(), at::Tensor()};
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
  if (x_NC.is_cpu() && !takes_fast_path(x_NC)) return rms_norm_reference(x_NC, weight_C, epsilon);   // GPUs have a kernel of ours
  return RmsNorm::apply(x_NC.contiguous(), weight_C.contiguous(), epsilon);
}

TORCH_LIBRARY(graft, library) {
  library.def("rms_norm_forward(Tensor x, Tensor weight, float epsilon) -> (Tensor, Tensor)");
  library.def("rms_norm_backward(Tensor gradient, Tensor x, Tensor weight, Tensor inverse_rms) -> Tensor");
}

}  // namespace graft
