#include "trainer/models/mixture_of_experts.h"

#include <ATen/ATen.h>

#include "kernels/experts/experts.h"
#include "kernels/gated_activation/gated_activation.h"
#include "trainer/models/input_observer.h"

namespace graft {
namespace {

RouterOptions::Score score_of(RouterSpec::Score score) {
  switch (score) {
    case RouterSpec::Score::kSoftmax: return RouterOptions::Score::kSoftmax;
    case RouterSpec::Score::kSigmoid: return RouterOptions::Score::kSigmoid;
    default: return RouterOptions::Score::kSoftmaxOfChosen;
  }
}

// One expert of a bank as a linear layer.
at::Tensor expert_product(const Linear& bank, int64_t expert, const at::Tensor& p_MC) {
  std::vector<LinearPart> parts;
  int64_t first_output = 0;
  for (int64_t part = 0; part < bank.parts(); ++part) {
    auto& made = parts.emplace_back();
    made.weight = &bank.experts[static_cast<size_t>(expert * bank.parts() + part)];
    if (bank.bias_O.defined()) made.bias_O = bank.bias_O.select(0, expert).narrow(0, first_output, made.weight->rows()).contiguous();
    if (bank.adapter) {
      const auto& adapter = *bank.adapter;
      const int64_t rank = adapter.lora_a_RC.size(0) / bank.num_experts;
      made.lora_a_RC = adapter.lora_a_RC.narrow(0, expert * rank, rank).contiguous();
      made.lora_b_OR = adapter.lora_b_OR.narrow(0, expert * bank.outputs() + first_output, made.weight->rows()).contiguous();
      made.scale = adapter.scale;
      made.merged = !adapter.served.empty();
      if (made.merged) made.weight = &adapter.served[static_cast<size_t>(expert * bank.parts() + part)];
    }
    first_output += made.weight->rows();
  }
  return lora_linear(p_MC, {}, parts);
}

// Shows what each expert multiplies with. The operator keeps that for itself, so it is computed a second time.
void show_inputs(InputObserver& observer, const Linear& gate_up, const Linear& down, const ExpertActivation& of_experts, const at::Tensor& x_NC, const at::Tensor& chosen_NK) {
  const bool clamped = of_experts.kind == ExpertActivation::Kind::kClampedSwiGlu;
  const GatedActivation activation{clamped ? GatedActivation::Kind::kClampedSwiGlu : GatedActivation::Kind::kSwiGlu, false, of_experts.alpha, of_experts.limit};
  for (int64_t expert = 0; expert < gate_up.num_experts; ++expert) {
    const auto rows_M = (chosen_NK == expert).any(1).nonzero().squeeze(1);
    if (rows_M.size(0) == 0) continue;
    const auto x_MC = x_NC.index_select(0, rows_M);
    observer.see(gate_up, expert, x_MC);
    observer.see(down, expert, gated_activation(expert_product(gate_up, expert, x_MC), activation));
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
  if (context.batch.observer) show_inputs(*context.batch.observer, gate_up, down, activation, x_NC, routed.chosen_NK);
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
