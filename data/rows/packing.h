// Rows to packed micro-batches: no padding anywhere, deterministic, a pure function of its arguments.
#pragma once
#include <cstdint>
#include <vector>

namespace graft {

// One optimizer step: micro-batches of row indices; each micro-batch has at most pack_tokens tokens (a longer single row stands alone).
using MicroBatches = std::vector<std::vector<int64_t>>;

// The rows of step `step` (0-based): a permutation of all rows per epoch, a pure function of (seed, epoch); batch_rows rows a step; the
// last step of an epoch may be smaller; steps never mix epochs.
std::vector<int64_t> rows_of_step(int64_t num_rows, int64_t batch_rows, uint64_t seed, int64_t step);
int64_t steps_per_epoch(int64_t num_rows, int64_t batch_rows);

// First-fit-decreasing over lengths (ties by position): few micro-batches, deterministic order.
MicroBatches pack_rows(const std::vector<int64_t>& rows, const std::vector<int64_t>& lengths, int64_t pack_tokens);

// The dense arrays of one micro-batch (DESIGN section 3, Batch). labels: target of position i, -100 = unsupervised; last of a document -100.
struct PackedArrays {
  std::vector<int32_t> tokens, positions, document_offsets;   // offsets: D+1
  std::vector<int32_t> labels;
  std::vector<float> weights;                                 // per token: its row's loss weight
};

}  // namespace graft
