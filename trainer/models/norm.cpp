#include "trainer/models/norm.h"

#include <c10/core/Device.h>

#include "kernels/layer_norm/layer_norm.h"
#include "kernels/rms_norm/rms_norm.h"

namespace graft {

at::Tensor Norm::apply(const at::Tensor& x_NC) const {
  if (spec.kind == NormSpec::Kind::kRms) return rms_norm(x_NC, weight_C, spec.epsilon);
  return layer_norm(x_NC, weight_C, bias_C, {spec.epsilon});
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

at::Tensor materialised(const BlockInput& input) {
  if (input.prologue.kind == LinearPrologue::Kind::kNone) return input.x_NC;
  TORCH_INTERNAL_ASSERT(input.prologue.kind == LinearPrologue::Kind::kRmsNorm, "a block's input is normed at most");
  return rms_norm(input.x_NC, input.prologue.norm_weight_C, input.prologue.epsilon);
}

}  // namespace graft
