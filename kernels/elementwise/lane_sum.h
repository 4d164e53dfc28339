// Sums in kLanes partial sums, so that the compiler may vectorise them without reordering what we wrote: the same bits in every clone width that divides
// kLanes.
#pragma once
#include <cstdint>

#include "kernels/quantized/simd_clones.h"

namespace graft::rows {

constexpr int64_t kLanes = 16;

// Of term(i), i < size.
template <typename Term>
GRAFT_INLINE_IN_CLONES float lane_sum(int64_t size, const Term& term) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += term(i + lane);
  }
  for (; i < size; ++i) lanes[i % kLanes] += term(i);
  float sum = 0;
  for (int64_t lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
  return sum;
}

}  // namespace graft::rows
