// What a forward pass reads: flat and packed, always; no padding anywhere. Attention never crosses a document border.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/delta_attention/delta_attention.h"

namespace graft {

constexpr int32_t kUnsupervised = -100;

class InputObserver;

struct Batch {
  std::vector<int32_t> tokens_N;
  std::vector<int32_t> positions_N;          // within the document
  std::vector<int32_t> document_offsets;     // D + 1
  std::vector<int32_t> labels_N;             // the target of position i; kUnsupervised; the last of a document is kUnsupervised. May be empty
  std::vector<float> weights_N;              // of the loss at position i; empty: 1
  bool teaches_all = false;                  // a teacher is followed on all tokens but each document's last, not on the supervised ones alone
  std::vector<int64_t> row_keys_N;           // for dropout: of (row, position); empty without dropout
  uint64_t dropout_seed = 0;                 // of (run seed, step); 0: dropout off
  int64_t shared_prefix = 0;                 // the first document's first tokens, which stand before every later document too (share_prefix)
  InputObserver* observer = nullptr;         // sees what the linears multiply with; null: nobody

  int64_t num_tokens() const { return static_cast<int64_t>(tokens_N.size()); }
  // The tokens that have a label, in order.
  std::vector<int64_t> supervised_tokens() const;
  // The tokens that a loss is taken of: those and, with teaches_all, all others that have a next token.
  std::vector<int64_t> taught_tokens() const;
  // Appends one document with positions from first_position on.
  void add_document(const std::vector<int32_t>& tokens, int32_t first_position = 0);
};

// Rows of one task mostly begin alike: with the system prompt. This batch computes the tokens with which all documents begin once, in the
// first document; the later documents hold what follows. Losses and gradients are the same sums. Unchanged where it does not pay, where
// dropout draws per row, or (labels) up to a token that a loss is taken of.
Batch share_prefix(const Batch& batch);

// What one layer keeps of one sequence: one of the two, as its mixer needs.
struct LayerState {
  KeyValueCache keys_values;
  DeltaState delta;
  int64_t length() const { return std::max(keys_values.length, delta.length); }
};

// What the layers keep of earlier tokens, for D sequences of different length. document_offsets of a Batch then delimit the new tokens.
struct DecodeState {
  std::vector<std::vector<LayerState>> layers;   // [layer][sequence]
  explicit DecodeState(size_t num_layers, size_t num_sequences = 0)
      : layers(num_layers, std::vector<LayerState>(num_sequences)) {}
  size_t num_sequences() const { return layers.empty() ? 0 : layers[0].size(); }
  int64_t length(size_t sequence) const { return layers.at(0).at(sequence).length(); }
  // A sequence is expected to have so many tokens, so that its caches grow once.
  void reserve(size_t sequence, int64_t tokens);
  // Replaces the sequences by copies of those named (repeats and drops allowed): branching of a search, end of a sequence.
  void select(const std::vector<size_t>& sequences);
};

}  // namespace graft
