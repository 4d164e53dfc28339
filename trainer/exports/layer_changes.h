// How much every layer changes what passes through it: 1 - the cosine between a token's residual stream before and after, meaned over tokens (block importance: ShortGPT,
// arXiv 2403.03853; Minitron, arXiv 2407.14679). Layers that change little are the first to be left out.
#pragma once
#include <vector>

#include "trainer/models/decoder.h"

namespace graft {

class LayerChanges {
 public:
  explicit LayerChanges(const Decoder& decoder) : decoder_(decoder), sums_(static_cast<size_t>(decoder.num_layers())) {}
  void add(const Batch& batch);   // runs the decoder as it is, adapters included
  std::vector<double> means() const;

 private:
  const Decoder& decoder_;
  std::vector<double> sums_;   // of cosines
  int64_t num_tokens_ = 0;
};

}  // namespace graft
