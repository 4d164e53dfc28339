#include "trainer/models/norm.h"

#include <ATen/ops/add.h>
#include <c10/core/Device.h>

#include "kernels/device_launch/device_launch.h"
#include "kernels/layer_norm/layer_norm.h"
#include "kernels/rms_norm/rms_norm.h"

namespace graft {

at::Tensor Norm::apply(const at::Tensor& x_NC) const {
  if (spec.kind == NormSpec::Kind::kRms) return rms_norm(x_NC, weight_C, spec.epsilon);
  return layer_norm(x_NC, weight_C, bias_C, {spec.epsilon});
}

NormedSum Norm::apply_to_sum(const at::Tensor& x_NC, const at::Tensor& further_NC) const {
  if (spec.kind == NormSpec::Kind::kRms) return add_and_rms_norm(x_NC, further_NC, weight_C, {spec.epsilon});
  return add_and_layer_norm(x_NC, further_NC, weight_C, bias_C, {spec.epsilon});
}

void Norm::set_device(c10::Device device) {
  for (auto* vector : {&weight_C, &bias_C}) {
    if (vector->defined()) *vector = vector->to(device);
  }
}

BlockInput normed_input(const std::optional<Norm>& norm, const at::Tensor& x_NC) {
  BlockInput input{x_NC, {}};
  if (norm && norm->spec.kind == NormSpec::Kind::kRms) {
    input.prologue.kind = LinearPrologue::Kind::kRmsNorm;
    input.prologue.norm_weight_C = norm->weight_C;
    input.prologue.epsilon = norm->spec.epsilon;
  } else if (norm) {
    input.x_NC = norm->apply(x_NC);
  }
  return input;
}

ResidualSum add_to_residual(const at::Tensor& x_NC, const at::Tensor& output_NC, const std::optional<Norm>& next_norm) {
  if (next_norm && takes_kernels(x_NC)) {
    const auto [sum_NC, y_NC] = next_norm->apply_to_sum(x_NC, output_NC);
    return {sum_NC, {y_NC, {}}};
  }
  const auto sum_NC = at::add(x_NC, output_NC);
  return {sum_NC, normed_input(next_norm, sum_NC)};
}

at::Tensor materialised(const BlockInput& input) {
  if (input.prologue.kind == LinearPrologue::Kind::kNone) return input.x_NC;
  TORCH_INTERNAL_ASSERT(input.prologue.kind == LinearPrologue::Kind::kRmsNorm, "a block's input is normed at most");
  return rms_norm(input.x_NC, input.prologue.norm_weight_C, input.prologue.epsilon);
}

}  // namespace graft
