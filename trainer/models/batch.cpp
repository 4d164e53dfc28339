#include "trainer/models/batch.h"

#include <algorithm>

namespace graft {
namespace {

constexpr int64_t kShortestPrefix = 4;

// How many tokens all documents begin with, each of them keeping at least one of its own, and none of these a place where a loss is taken.
int64_t common_prefix(const Batch& batch) {
  const auto& offsets = batch.document_offsets;
  int64_t length = offsets.size() < 3 || batch.dropout_seed != 0 || batch.teaches_all ? 0 : batch.num_tokens();
  for (size_t d = 0; d + 1 < offsets.size(); ++d) {
    const int64_t begin = offsets[d];
    length = std::min<int64_t>(length, offsets[d + 1] - begin - 1);
    for (int64_t i = 0; i < length; ++i) {
      const bool same = batch.tokens_N[begin + i] == batch.tokens_N[i] && batch.positions_N[begin + i] == i;
      const bool supervised = !batch.labels_N.empty() && batch.labels_N[begin + i] != kUnsupervised;
      if (!same || supervised) length = i;
    }
  }
  return std::max<int64_t>(length, 0);
}

template <typename T>
void drop_prefixes(std::vector<T>& values_N, const std::vector<int32_t>& offsets, int64_t prefix) {
  if (values_N.empty()) return;
  auto end = values_N.begin() + offsets[1];
  for (size_t d = 1; d + 1 < offsets.size(); ++d) end = std::copy(values_N.begin() + offsets[d] + prefix, values_N.begin() + offsets[d + 1], end);
  values_N.erase(end, values_N.end());
}

}  // namespace

Batch share_prefix(const Batch& batch) {
  const int64_t prefix = common_prefix(batch);
  if (prefix < kShortestPrefix) return batch;
  Batch shared = batch;
  shared.shared_prefix = prefix;
  drop_prefixes(shared.tokens_N, batch.document_offsets, prefix);
  drop_prefixes(shared.positions_N, batch.document_offsets, prefix);
  drop_prefixes(shared.labels_N, batch.document_offsets, prefix);
  drop_prefixes(shared.weights_N, batch.document_offsets, prefix);
  for (size_t d = 1; d < shared.document_offsets.size(); ++d) shared.document_offsets[d] -= static_cast<int32_t>((d - 1) * prefix);
  return shared;
}

std::vector<int64_t> Batch::supervised_tokens() const {
  std::vector<int64_t> tokens;
  for (size_t n = 0; n < labels_N.size(); ++n) {
    if (labels_N[n] != kUnsupervised) tokens.push_back(static_cast<int64_t>(n));
  }
  return tokens;
}

std::vector<int64_t> Batch::taught_tokens() const {
  if (!teaches_all) return supervised_tokens();
  std::vector<int64_t> tokens;
  for (size_t d = 0; d + 1 < document_offsets.size(); ++d) {
    for (int64_t n = document_offsets[d]; n + 1 < document_offsets[d + 1]; ++n) tokens.push_back(n);
  }
  return tokens;
}

void Batch::add_document(const std::vector<int32_t>& tokens, int32_t first_position) {
  if (document_offsets.empty()) document_offsets.push_back(0);
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens_N.push_back(tokens[i]);
    positions_N.push_back(first_position + static_cast<int32_t>(i));
  }
  document_offsets.push_back(static_cast<int32_t>(tokens_N.size()));
}

void DecodeState::select(const std::vector<size_t>& sequences) {
  for (auto& layer : layers) {
    std::vector<size_t> uses(layer.size(), 0);
    for (const auto s : sequences) ++uses.at(s);
    std::vector<LayerState> selected;
    selected.reserve(sequences.size());
    for (const auto s : sequences) {   // the last use moves, earlier ones copy
      if (--uses[s] == 0) selected.push_back(std::move(layer[s]));
      else selected.push_back(layer[s]);
    }
    layer = std::move(selected);
  }
}

void DecodeState::reserve(size_t sequence, int64_t tokens) {
  for (auto& layer : layers) layer.at(sequence).keys_values.reserved = tokens;
}

}  // namespace graft
