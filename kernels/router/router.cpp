#include "kernels/router/router.h"

#include <limits>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include "kernels/common/check_tensor.h"
#include "kernels/device_launch/device_launch.h"

namespace graft {
namespace {

using at::Tensor;
using Score = RouterOptions::Score;

Tensor scores_of(Score score, const Tensor& logits_NE) {
  switch (score) {
    case Score::kSoftmax: return at::softmax(logits_NE, -1);
    case Score::kSigmoid: return at::sigmoid(logits_NE);
    case Score::kSquareRootSoftplus: return at::softplus(logits_NE).sqrt();
    case Score::kSoftmaxOfChosen: return logits_NE;
  }
  fail("kernels", "router: expected a known score, got {}", static_cast<int>(score));
}

// Scores of experts outside the best groups become -infinity.
Tensor within_best_groups(const RouterOptions& options, const Tensor& grouped_NGS) {
  const int64_t rows = grouped_NGS.size(0), size = grouped_NGS.size(2);
  const int64_t counted = options.group_score == RouterOptions::GroupScore::kBest ? 1 : std::min<int64_t>(2, size);
  const auto group_scores = std::get<0>(grouped_NGS.topk(counted, -1)).sum(-1);
  const auto best = std::get<1>(group_scores.topk(options.groups_per_token, -1));
  const auto outside = at::ones({rows, options.num_groups}, grouped_NGS.options().dtype(at::kBool)).scatter(1, best, false);
  return grouped_NGS.masked_fill(outside.unsqueeze(-1), -std::numeric_limits<double>::infinity()).view({rows, options.num_groups * size});
}

Tensor chosen_of(const RouterOptions& options, const Tensor& scores_NE, const Tensor& selection_bias_E) {
  auto choice_NE = scores_NE.detach();
  if (selection_bias_E.defined()) choice_NE = choice_NE + selection_bias_E;
  if (options.num_groups == 1) return std::get<1>(choice_NE.topk(options.experts_per_token, -1));
  const int64_t size = choice_NE.size(1) / options.num_groups;
  const auto grouped_NGS = choice_NE.view({choice_NE.size(0), options.num_groups, size});
  if (options.one_per_group) return grouped_NGS.argmax(-1) + at::arange(options.num_groups, grouped_NGS.options().dtype(at::kLong)) * size;
  return std::get<1>(within_best_groups(options, grouped_NGS).topk(options.experts_per_token, -1));
}

Tensor weights_of(const RouterOptions& options, const Tensor& scores_NE, const Tensor& chosen_NK, const Tensor& expert_scale_E) {
  auto weights_NK = scores_NE.gather(-1, chosen_NK);
  if (options.score == Score::kSoftmaxOfChosen) weights_NK = at::softmax(weights_NK, -1);
  if (options.renormalise) weights_NK = weights_NK / weights_NK.sum(-1, true).clamp_min(options.smallest_sum);
  if (options.scale != 1) weights_NK = weights_NK * options.scale;
  return expert_scale_E.defined() ? weights_NK * expert_scale_E.index_select(0, chosen_NK.flatten()).view_as(chosen_NK) : weights_NK;
}

void check(const RouterOptions& options, const Tensor& logits_NE, const Tensor& selection_bias_E, const Tensor& expert_scale_E) {
  if (logits_NE.dim() != 2 || !logits_NE.is_floating_point()) {
    fail("kernels", "router: expected logits [N, E] of a floating type, got {} {}", c10::toString(logits_NE.scalar_type()), c10::str(logits_NE.sizes()));
  }
  const int64_t experts = logits_NE.size(1), groups = options.num_groups, chosen = options.experts_per_token;
  if (chosen < 1 || chosen > experts) fail("kernels", "router: expected experts_per_token from 1 to {}, the number of experts, got {}", experts, chosen);
  if (groups < 1 || experts % groups != 0) fail("kernels", "router: expected num_groups to divide {}, the number of experts, got {}", experts, groups);
  if (options.groups_per_token < 1 || options.groups_per_token > groups) {
    fail("kernels", "router: expected groups_per_token from 1 to {}, the number of groups, got {}", groups, options.groups_per_token);
  }
  const int64_t available = options.one_per_group ? groups : experts / groups * options.groups_per_token;
  if (options.one_per_group ? chosen != groups : chosen > available) {
    fail("kernels", "router: expected experts_per_token {} {}, the experts that {} offer, got {}", options.one_per_group ? "to be" : "of at most", available,
         options.one_per_group ? "groups" : "the best groups", chosen);
  }
  check_tensor("router", "selection_bias", selection_bias_E, logits_NE.device(), {logits_NE.scalar_type()}, {experts});
  check_tensor("router", "expert_scale", expert_scale_E, logits_NE.device(), {logits_NE.scalar_type()}, {experts});
  if (logits_NE.is_cpu() && !at::isfinite(logits_NE).all().item<bool>()) fail("kernels", "router: expected finite logits, got an infinite one or NaN");
}

bool has_kernels(const RouterOptions& options, const Tensor& logits_NE) {
  return logits_NE.scalar_type() == at::kFloat && logits_NE.size(1) <= cuda::kMostRoutedExperts && options.experts_per_token <= cuda::kMostChosenExperts &&
         options.num_groups <= cuda::kMostExpertGroups;
}

// The weights once more with the choice as it is: small beside what was routed.
struct KernelRouterBackward : torch::autograd::Node {
  RouterOptions options;
  Tensor logits_NE, chosen_NK, expert_scale_E;

  std::string name() const override { return "KernelRouterBackward"; }
  void release_variables() override { logits_NE = chosen_NK = expert_scale_E = Tensor(); }

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    if (!gradients[0].defined()) return {Tensor()};
    const at::AutoGradMode mode(true);
    const auto logits = logits_NE.detach().requires_grad_();
    const auto weights = weights_of(options, scores_of(options.score, logits), chosen_NK, expert_scale_E);
    return torch::autograd::grad({weights}, {logits}, {gradients[0]});
  }
};

Routed route_by_kernels(const RouterOptions& options, const Tensor& given_logits, const Tensor& selection_bias_E, const Tensor& expert_scale_E) {
  const auto logits = for_kernels(given_logits.detach());
  const int64_t tokens = logits.size(0), chosen = options.experts_per_token;
  Routed routed = {at::empty({tokens, chosen}, logits.options().dtype(at::kLong)), at::empty({tokens, chosen}, logits.options())};
  const auto ready = [](const Tensor& vector_E) { return vector_E.defined() ? for_kernels(vector_E.detach()) : Tensor(); };
  const auto bias = ready(selection_bias_E), scale = ready(expert_scale_E);
  cuda::RouterForward arguments = {};
  arguments.logits_NE = logits.const_data_ptr<float>();
  arguments.selection_bias_E = bias.defined() ? bias.const_data_ptr<float>() : nullptr;
  arguments.expert_scale_E = scale.defined() ? scale.const_data_ptr<float>() : nullptr;
  arguments.num_tokens = tokens;
  arguments.num_experts = static_cast<int>(logits.size(1));
  arguments.experts_per_token = static_cast<int>(chosen);
  arguments.score = options.score;
  arguments.num_groups = static_cast<int>(options.num_groups);
  arguments.groups_per_token = static_cast<int>(options.groups_per_token);
  arguments.group_score = options.group_score;
  arguments.one_per_group = options.one_per_group;
  arguments.renormalise = options.renormalise;
  arguments.smallest_sum = static_cast<float>(options.smallest_sum);
  arguments.scale = static_cast<float>(options.scale);
  arguments.chosen_NK = routed.chosen_NK.data_ptr<int64_t>();
  arguments.weights_NK = routed.weights_NK.data_ptr<float>();
  launch_on(logits, "router", arguments);
  if (torch::autograd::compute_requires_grad(given_logits)) {
    auto node = std::make_shared<KernelRouterBackward>();
    node->set_next_edges(torch::autograd::collect_next_edges(given_logits));
    node->options = options;
    node->logits_NE = logits;
    node->chosen_NK = routed.chosen_NK;
    node->expert_scale_E = scale;
    torch::autograd::create_gradient_edge(routed.weights_NK, node);
  }
  return routed;
}

}  // namespace

Routed route_reference(const RouterOptions& options, const Tensor& logits_NE, const Tensor& selection_bias_E, const Tensor& expert_scale_E) {
  const auto scores_NE = scores_of(options.score, logits_NE);
  const auto chosen_NK = chosen_of(options, scores_NE, selection_bias_E);
  return {chosen_NK, weights_of(options, scores_NE, chosen_NK, expert_scale_E)};
}

Routed route(const RouterOptions& options, const Tensor& logits_NE, const Tensor& selection_bias_E, const Tensor& expert_scale_E) {
  check(options, logits_NE, selection_bias_E, expert_scale_E);
  if (takes_kernels(logits_NE, has_kernels(options, logits_NE))) return route_by_kernels(options, logits_NE, selection_bias_E, expert_scale_E);
  return route_reference(options, logits_NE, selection_bias_E, expert_scale_E);
}

}  // namespace graft
