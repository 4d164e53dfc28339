#include "trainer/verify/divergence.h"

#include <algorithm>
#include <cmath>

#include <ATen/Parallel.h>

#include "kernels/common/error.h"

namespace graft {

std::vector<PositionDivergence> divergence(const at::Tensor& trained_BV, const at::Tensor& served_BV) {
  if (trained_BV.sizes() != served_BV.sizes()) {
    fail("verify", "expected logits of {} positions x {} tokens, got {} x {} — the artefact has another vocabulary", trained_BV.size(0),
         trained_BV.size(1), served_BV.size(0), served_BV.size(1));
  }
  const int64_t vocab = trained_BV.size(1);
  std::vector<PositionDivergence> result(static_cast<size_t>(trained_BV.size(0)));
  at::parallel_for(0, trained_BV.size(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const float* p = trained_BV.const_data_ptr<float>() + b * vocab;
      const float* q = served_BV.const_data_ptr<float>() + b * vocab;
      const auto top_p = std::max_element(p, p + vocab) - p, top_q = std::max_element(q, q + vocab) - q;
      double sum_p = 0, sum_q = 0, weighted = 0;   // weighted: sum of exp(p) * (p - q), all relative to the maxima
      for (int64_t v = 0; v < vocab; ++v) {
        const double dp = static_cast<double>(p[v]) - p[top_p], dq = static_cast<double>(q[v]) - q[top_q];
        const double weight = std::exp(dp);
        sum_p += weight;
        sum_q += std::exp(dq);
        weighted += weight * (dp - dq);
      }
      result[b] = {weighted / sum_p - std::log(sum_p) + std::log(sum_q), top_p == top_q};
    }
  });
  return result;
}

DivergenceSummary summarise(std::vector<PositionDivergence> positions) {
  DivergenceSummary summary;
  summary.positions = static_cast<int64_t>(positions.size());
  if (positions.empty()) return summary;
  std::vector<double> values;
  for (const auto& position : positions) {
    summary.mean_kl += position.kl;
    summary.top1_agreement += position.same_top1;
    values.push_back(position.kl);
  }
  summary.mean_kl /= static_cast<double>(positions.size());
  summary.top1_agreement /= static_cast<double>(positions.size());
  std::sort(values.begin(), values.end());
  summary.p99_kl = values[static_cast<size_t>(0.99 * static_cast<double>(values.size() - 1))];
  summary.max_kl = values.back();
  return summary;
}

}  // namespace graft
