#include "trainer/models/mixture_of_experts.h"

#include <limits>

#include <ATen/ATen.h>

#include "kernels/experts/experts.h"

namespace graft {
namespace {

// Scores of experts outside the best groups become -infinity.
at::Tensor within_best_groups(const RouterSpec& spec, const at::Tensor& scores_NE) {
  if (spec.num_groups == 1) return scores_NE;
  const int64_t rows = scores_NE.size(0), size = spec.num_experts / spec.num_groups;
  const auto grouped = scores_NE.view({rows, spec.num_groups, size});
  const int64_t counted = spec.group_score == RouterSpec::GroupScore::kBest ? 1 : std::min<int64_t>(2, size);
  const auto group_scores = std::get<0>(grouped.topk(counted, -1)).sum(-1);
  const auto best = std::get<1>(group_scores.topk(spec.groups_per_token, -1));
  const auto outside = at::ones({rows, spec.num_groups}, scores_NE.options().dtype(at::kBool)).scatter(1, best, false);
  return grouped.masked_fill(outside.unsqueeze(-1), -std::numeric_limits<double>::infinity()).view({rows, spec.num_experts});
}

}  // namespace

Routed route(const RouterSpec& spec, const at::Tensor& logits_NE, const at::Tensor& selection_bias_E) {
  if (spec.score == RouterSpec::Score::kSoftmaxOfChosen) {
    const auto [best, chosen_NK] = logits_NE.topk(spec.experts_per_token, -1);
    return {chosen_NK, at::softmax(best, -1)};
  }
  const auto scores_NE = spec.score == RouterSpec::Score::kSoftmax ? at::softmax(logits_NE, -1) : at::sigmoid(logits_NE);
  auto choice_NE = scores_NE.detach();
  if (selection_bias_E.defined()) choice_NE = choice_NE + selection_bias_E;
  const auto chosen_NK = std::get<1>(within_best_groups(spec, choice_NE).topk(spec.experts_per_token, -1));
  auto weights_NK = scores_NE.gather(-1, chosen_NK);
  if (spec.renormalise) weights_NK = weights_NK / weights_NK.sum(-1, true).clamp_min(spec.smallest_sum);
  return {chosen_NK, spec.scale == 1 ? weights_NK : weights_NK * spec.scale};
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
  const auto routed = route(spec_.router, logits_NE, selection_bias_E);
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
