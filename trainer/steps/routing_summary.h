// How evenly the routers of a mixture of experts spread a step's tokens: figures of micro-batches, summed over processes, to a few numbers for metrics.
#pragma once
#include <optional>
#include <vector>

#include "trainer/steps/micro_batch.h"

namespace graft {

struct RoutingStatistics {
  double load_balancing_loss = 0;   // mean over micro-batches, weighted by their supervised tokens
  double largest_share = 0;         // of a layer's choices that fell on one expert, the largest of all layers; even: 1 / experts
  double entropy = 0;               // of a layer's shares, divided by that of even ones, mean over layers: 1 even, 0 all on one expert
};

class RoutingSummary {
 public:
  explicit RoutingSummary(const DecoderSpec& spec);
  int64_t num_figures() const { return num_figures_; }   // of a micro-batch; 0 in a dense model
  void write(const MicroBatchResult& result, double gradient_scale, double* figures) const;
  void add(const double* figures);
  std::optional<RoutingStatistics> statistics() const;   // none in a dense model

 private:
  int64_t num_experts_ = 0, num_figures_ = 0;
  std::vector<double> sums_;   // the load-balancing loss, then [layers, experts]
};

}  // namespace graft
