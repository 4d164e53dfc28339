// Kullback-Leibler divergence of a served model from the trained one, position by position.
#pragma once
#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace graft {

// KL(trained || served) in nats of each position of two [B, V] float32 blocks, in double; and whether both have the same highest logit.
struct PositionDivergence {
  double kl = 0;
  bool same_top1 = false;
};
std::vector<PositionDivergence> divergence(const at::Tensor& trained_BV, const at::Tensor& served_BV);

struct DivergenceSummary {
  int64_t positions = 0;
  double mean_kl = 0, p99_kl = 0, max_kl = 0, top1_agreement = 0;
};
DivergenceSummary summarise(std::vector<PositionDivergence> positions);

}  // namespace graft
