#include "kernels/gated_activation/gated_activation.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/custom_function.h>

#include "kernels/device_launch/device_launch.h"
#include "kernels/device_launch/row_type.h"
#include "kernels/elementwise/typed_rows.h"

namespace graft {
namespace {

using Kind = GatedActivation::Kind;

cuda::GatedActivationRows rows_of(const at::Tensor& x, const GatedActivation& activation) {
  return {x.const_data_ptr(),
          x.size(0),
          static_cast<int>(activation.gated() ? x.size(1) / 2 : x.size(1)),
          activation.kind,
          activation.interleaved,
          static_cast<float>(activation.alpha),
          static_cast<float>(activation.limit),
          row_type(x)};
}

struct GatedActivationByKernels : torch::autograd::Function<GatedActivationByKernels> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& given_x, const GatedActivation& activation) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const auto x = for_kernels(given_x);
    const auto of = rows_of(x, activation);
    auto y_NI = at::empty({x.size(0), of.width}, x.options());
    launch_on(x, "gated_activation", cuda::GatedActivationForward{of, y_NI.data_ptr()});
    context->save_for_backward({x});
    context->saved_data["kind"] = static_cast<int64_t>(activation.kind);
    context->saved_data["interleaved"] = activation.interleaved;
    context->saved_data["alpha"] = activation.alpha;
    context->saved_data["limit"] = activation.limit;
    return y_NI;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, const torch::autograd::variable_list& gradients) {
    auto& saved = context->saved_data;
    const GatedActivation activation{static_cast<Kind>(saved["kind"].toInt()), saved["interleaved"].toBool(), saved["alpha"].toDouble(),
                                     saved["limit"].toDouble()};
    const auto x = context->get_saved_variables()[0], gradient = for_kernels(gradients[0]);
    auto dx = at::empty_like(x);
    launch_on(x, "gated_activation backward", cuda::GatedActivationBackward{rows_of(x, activation), gradient.const_data_ptr(), dx.data_ptr()});
    return {dx, at::Tensor()};
  }
};

}  // namespace

at::Tensor gated_activation_reference(const at::Tensor& x, const GatedActivation& activation) {
  const auto type = x.scalar_type();
  const auto wide = x.to(wide_type(type));
  if (!activation.gated()) return at::gelu(wide, "tanh").to(type);
  const int64_t width = x.size(1) / 2;
  const auto gate = activation.interleaved ? wide.slice(1, 0, std::nullopt, 2) : wide.narrow(1, 0, width);
  const auto up = activation.interleaved ? wide.slice(1, 1, std::nullopt, 2) : wide.narrow(1, width, width);
  if (activation.kind == Kind::kSwiGlu) return (at::silu(gate) * up).to(type);
  if (activation.kind == Kind::kGeluTanhGated) return (at::gelu(gate, "tanh") * up).to(type);
  const auto g = gate.clamp_max(activation.limit), u = up.clamp(-activation.limit, activation.limit);
  return (g * at::sigmoid(g * activation.alpha) * (u + 1)).to(type);
}

at::Tensor gated_activation(const at::Tensor& x, const GatedActivation& activation) {
  if (x.dim() != 2 || !x.is_floating_point() || (activation.gated() && x.size(1) % 2 != 0)) {
    fail("kernels", "gated_activation: expected a floating type and sizes [N, {}], got {} of sizes [{}]", activation.gated() ? "2I" : "I",
         c10::toString(x.scalar_type()), fmt::join(x.sizes(), ", "));
  }
  if (!takes_kernels(x, has_row_type(x))) return gated_activation_reference(x, activation);
  return GatedActivationByKernels::apply(x, activation);
}

}  // namespace graft
