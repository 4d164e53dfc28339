#include "trainer/models/mixture_of_experts.h"

#include <ATen/ATen.h>

#include "kernels/experts/experts.h"

namespace graft {
namespace {

RouterOptions::Score score_of(RouterSpec::Score score) {
  switch (score) {
    case RouterSpec::Score::kSoftmax: return RouterOptions::Score::kSoftmax;
    case RouterSpec::Score::kSigmoid: return RouterOptions::Score::kSigmoid;
    default: return RouterOptions::Score::kSoftmaxOfChosen;
  }
}

}  // namespace

RouterOptions router_options(const RouterSpec& spec) {
  RouterOptions options;
  options.experts_per_token = spec.experts_per_token;
  options.score = score_of(spec.score);
  options.num_groups = spec.num_groups;
  options.groups_per_token = spec.groups_per_token;
  options.group_score = spec.group_score == RouterSpec::GroupScore::kBest ? RouterOptions::GroupScore::kBest : RouterOptions::GroupScore::kTwoBest;
  options.renormalise = spec.renormalise;
  options.smallest_sum = spec.smallest_sum;
  options.scale = spec.scale;
  return options;
}

std::vector<Linear*> MixtureOfExperts::linears() {
  std::vector<Linear*> all = {&gate_up, &down};
  if (!shared) return all;
  for (auto* linear : shared->linears()) all.push_back(linear);
  return all;
}

at::Tensor MixtureOfExperts::forward(const BlockInput& input, const LayerContext& context) const {
  const auto x_NC = materialised(input);
  const auto logits_NE = float_product(router, router_bias_E, x_NC);
  const auto routed = route(router_options(spec_.router), logits_NE, selection_bias_E);
  if (context.routing) *context.routing = {routed.chosen_NK, at::softmax(logits_NE, -1)};
  ExpertActivation activation;
  if (spec_.activation == ExpertsSpec::Activation::kClampedSwiGlu) {
    activation = {ExpertActivation::Kind::kClampedSwiGlu, spec_.clamp_alpha, spec_.clamp_limit};
  }
  const auto y_NC = experts(x_NC, routed.chosen_NK, routed.weights_NK, gate_up.bank(), down.bank(), activation);
  if (!shared) return y_NC;
  auto shared_NC = shared->forward({x_NC, {}}, context);
  if (shared_gate) shared_NC = shared_NC * at::sigmoid(float_product(*shared_gate, {}, x_NC)).to(shared_NC.scalar_type());
  return y_NC + shared_NC;
}

void MixtureOfExperts::set_device(c10::Device device, at::ScalarType compute) {
  Block::set_device(device, compute);
  move_float(router, device);
  if (shared_gate) move_float(*shared_gate, device);
  for (auto* vector : {&router_bias_E, &selection_bias_E}) move_to(*vector, device);
}

}  // namespace graft
