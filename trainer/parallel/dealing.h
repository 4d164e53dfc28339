// Which process computes which micro-batch of a step: a pure function of their sizes, so that every process knows all of it. The micro-batches
// themselves do not depend on the number of processes.
#pragma once
#include <cstdint>
#include <vector>

namespace graft {

// The rank of each micro-batch: the longest first, each to the rank with the fewest tokens so far (ties: the lower rank).
std::vector<int> deal(const std::vector<int64_t>& tokens_of_micro_batches, int num_ranks);

// Indices of the micro-batches of `rank`, rising, filled up with -1 (nothing to compute) to the length of the longest rank's list: a rank with
// less work still joins every collective.
std::vector<int64_t> rounds_of(const std::vector<int>& ranks, int rank, int num_ranks);

}  // namespace graft
