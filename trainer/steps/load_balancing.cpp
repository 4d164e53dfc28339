#include "trainer/steps/load_balancing.h"

#include <algorithm>

#include <ATen/ATen.h>

namespace graft {

LoadBalancing::LoadBalancing(const RouterSpec& router)
    : router_(router), chosen_E_(at::zeros({router.num_experts}, at::kDouble)), probability_E_(at::zeros({router.num_experts}, at::kDouble)) {}

void LoadBalancing::add(const Routing& routing) {
  const auto probability_NE = routing.probabilities_NE.detach();
  const auto count = [&](const at::Tensor& chosen_NK) { return at::bincount(chosen_NK.reshape(-1), {}, router_.num_experts).to(at::kDouble).cpu(); };
  const auto really = count(routing.chosen_NK);
  expert_tokens_.insert(expert_tokens_.end(), really.const_data_ptr<double>(), really.const_data_ptr<double>() + router_.num_experts);
  chosen_E_ += count(std::get<1>(probability_NE.topk(routing.chosen_NK.size(1), -1)));
  probability_E_ += probability_NE.sum(0, false, at::kDouble).cpu();
  rows_ += static_cast<double>(probability_NE.size(0));
  device_ = probability_NE.device();
}

double LoadBalancing::loss() const {
  if (rows_ == 0) return 0;
  return static_cast<double>(router_.num_experts) * (chosen_E_ * probability_E_).sum().item<double>() / (rows_ * rows_);
}

at::Tensor LoadBalancing::gradient_E() const {
  return (chosen_E_ * (weight_ * static_cast<double>(router_.num_experts) / (rows_ * rows_))).to(at::kFloat).to(device_);
}

}  // namespace graft
