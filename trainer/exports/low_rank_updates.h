// An adapter set as the export forms read it: plain data, one update of each adapted matrix.
#pragma once
#include <map>

#include "trainer/adapters/adapter_set.h"
#include "trainer/exports/export_source.h"

namespace graft {

// `values` is the set's flat buffer in host memory; the updates point into it.
std::map<const WeightRule*, LowRankUpdate> low_rank_updates(const AdapterSet& adapters, const float* values);

}  // namespace graft
