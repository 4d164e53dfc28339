#include "trainer/steps/routing_summary.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace graft {

RoutingSummary::RoutingSummary(const DecoderSpec& spec) {
  const auto* experts = spec.experts();
  if (!experts) return;
  const auto layers = std::count_if(spec.layers.begin(), spec.layers.end(), [](const LayerSpec& layer) { return layer.experts() != nullptr; });
  num_experts_ = experts->router.num_experts;
  num_figures_ = 1 + static_cast<int64_t>(layers) * num_experts_;
  sums_.assign(static_cast<size_t>(num_figures_), 0);
}

void RoutingSummary::write(const MicroBatchResult& result, double gradient_scale, double* figures) const {
  if (num_figures_ == 0) return;
  figures[0] = result.load_balancing_loss * gradient_scale * static_cast<double>(result.num_supervised);
  std::copy(result.expert_tokens.begin(), result.expert_tokens.end(), figures + 1);
}

void RoutingSummary::add(const double* figures) {
  for (size_t i = 0; i < sums_.size(); ++i) sums_[i] += figures[i];
}

std::optional<RoutingStatistics> RoutingSummary::statistics() const {
  if (num_figures_ == 0) return std::nullopt;
  RoutingStatistics statistics;
  statistics.load_balancing_loss = sums_[0];
  const auto layers = (num_figures_ - 1) / num_experts_;
  for (int64_t layer = 0; layer < layers; ++layer) {
    const double* tokens = sums_.data() + 1 + layer * num_experts_;
    const double all = std::max(1.0, std::accumulate(tokens, tokens + num_experts_, 0.0));
    double entropy = 0;
    for (int64_t expert = 0; expert < num_experts_; ++expert) {
      const double share = tokens[expert] / all;
      statistics.largest_share = std::max(statistics.largest_share, share);
      if (share > 0) entropy -= share * std::log(share);
    }
    statistics.entropy += num_experts_ > 1 ? entropy / std::log(static_cast<double>(num_experts_)) / static_cast<double>(layers) : 1 / static_cast<double>(layers);
  }
  return statistics;
}

}  // namespace graft
