#include "trainer/exports/layer_changes.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cosine_similarity.h>

namespace graft {

void LayerChanges::add(const Batch& batch) {
  const at::NoGradGuard no_gradient;
  LayerStream stream{decoder_.embed(batch), {}};
  for (int64_t index = 0; index < decoder_.num_layers(); ++index) {
    const auto before_NC = stream.x_NC.to(at::kDouble);
    stream = decoder_.run_layer(index, stream, batch);
    sums_[static_cast<size_t>(index)] += at::cosine_similarity(before_NC, stream.x_NC.to(at::kDouble), 1).sum().item<double>();
  }
  num_tokens_ += batch.num_tokens();
}

std::vector<double> LayerChanges::means() const {
  std::vector<double> means;
  for (const double sum : sums_) means.push_back(1 - sum / static_cast<double>(num_tokens_));
  return means;
}

}  // namespace graft
