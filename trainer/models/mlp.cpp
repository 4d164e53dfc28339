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
  LinearPrologue activation;
  activation.kind = activation_of(spec_);
  const auto inner = project(input, addresses(inputs), context.batch);
  return project({inner, activation}, {&down}, context.batch);
}

}  // namespace graft
