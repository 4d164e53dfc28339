#include "trainer/exports/low_rank_updates.h"

namespace graft {

std::map<const WeightRule*, LowRankUpdate> low_rank_updates(const AdapterSet& adapters, const float* values) {
  std::map<const WeightRule*, LowRankUpdate> updates;
  for (const auto& adapter : adapters.adapters()) {
    // Of experts each matrix has its own: A of its expert, and of that expert's B the rows that are this matrix's.
    const float *a = values + adapter.offset_a, *b = values + adapter.offset_b;
    for (size_t i = 0; i < adapter.rules.size(); ++i) {
      const auto* rule = adapter.rules[i];
      const int64_t outputs = rule->shape.at(0);
      updates[rule] = {rule, adapter.is_whole ? nullptr : a, b, adapter.is_whole ? 0 : adapter.rank, adapter.inputs, outputs, adapter.slot.scale};
      b += outputs * (adapter.is_whole ? adapter.inputs : adapter.rank);
      if (static_cast<int64_t>(i + 1) % adapter.parts == 0) a += adapter.rank * adapter.inputs;
    }
  }
  return updates;
}

}  // namespace graft
