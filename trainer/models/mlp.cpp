#include "trainer/models/mlp.h"

#include "kernels/common/error.h"

namespace graft {
namespace {

LinearPrologue::Kind activation_of(const MlpSpec& spec) {
  using Kind = LinearPrologue::Kind;
  if (spec.activation == MlpSpec::Activation::kGeluTanh) return spec.gated ? Kind::kGeluTanhGated : Kind::kGeluTanh;
  if (!spec.gated) fail("models", "expected a gate beside silu, got a plain MLP — this form is not supported");
  return Kind::kSwiGlu;
}

}  // namespace

std::vector<Linear*> Mlp::linears() {
  std::vector<Linear*> all;
  for (auto& linear : inputs) all.push_back(&linear);
  all.push_back(&down);
  return all;
}

at::Tensor Mlp::forward(const BlockInput& input, const LayerContext& context) const {
  std::vector<LinearPart> parts;
  for (const auto& linear : inputs) parts.push_back(linear.part());
  LinearPrologue activation;
  activation.kind = activation_of(spec_);
  const auto inner = lora_linear(input.x_NC, input.prologue, parts, dropout_of(inputs.front(), context.batch));
  return lora_linear(inner, activation, {down.part()}, dropout_of(down, context.batch));
}

}  // namespace graft
