// Rows to packed micro-batches: no padding anywhere, deterministic, a pure function of its arguments.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace graft {

// One optimizer step: micro-batches of row indices; each micro-batch has at most pack_tokens tokens (a longer single row stands
// alone).
using MicroBatches = std::vector<std::vector<int64_t>>;

// The rows of step `step` (0-based): a permutation of all rows per epoch, a pure function of (seed, epoch); batch_rows rows a
// step; the last step of an epoch may be smaller; steps never mix epochs. The permutation is Fisher-Yates with Philox4x32-10
// (Salmon et al., SC 2011), key = seed, counter = (index, epoch); the last one is kept per thread, so that walking through the
// steps of an epoch costs one.
std::vector<int64_t> rows_of_step(int64_t num_rows, int64_t batch_rows, uint64_t seed, int64_t step);
int64_t steps_per_epoch(int64_t num_rows, int64_t batch_rows);
// Step of the epoch that holds `step` is step % steps_per_epoch; the epoch is step / steps_per_epoch.
std::vector<int64_t> permutation_of_epoch(int64_t num_rows, uint64_t seed, int64_t epoch);

// First-fit-decreasing over lengths (ties by position): few micro-batches, deterministic order: rows within a micro-batch and
// micro-batches by their first row stand in the order of `rows`. lengths: of rows[i] at lengths[rows[i]], all at least 1.
MicroBatches pack_rows(const std::vector<int64_t>& rows, const std::vector<int64_t>& lengths, int64_t pack_tokens);

// The dense arrays of one micro-batch (DESIGN section 3, Batch). labels: target of position i, -100 = unsupervised; last of a
// document -100.
struct PackedArrays {
  std::vector<int32_t> tokens, positions, document_offsets;  // offsets: D+1
  std::vector<int32_t> labels;
  std::vector<float> weights;  // per token: its row's loss weight
};

// One encoded row as packing sees it: supervised[i] says whether token i is a training target.
struct TokenSpan {
  std::span<const int32_t> ids;
  std::span<const uint8_t> supervised;
  float weight = 1;
};

// Packs documents one after another; labels[i] = ids[i+1] where token i+1 of the same document is supervised. Documents may be
// empty.
PackedArrays make_packed(const std::vector<TokenSpan>& documents);

// Targets of a row: supervised tokens, without the first, which nothing predicts.
int64_t count_targets(std::span<const uint8_t> supervised);

}  // namespace graft
