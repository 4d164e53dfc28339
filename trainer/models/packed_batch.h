// Rows as data/ packs them, as a model reads them.
#pragma once
#include <utility>
#include <vector>

#include "data/rows/packing.h"
#include "trainer/models/batch.h"

namespace graft {

// One document a row, with its labels and the weight of its loss.
inline Batch packed_batch(const std::vector<TokenSpan>& rows) {
  auto packed = make_packed(rows);
  Batch batch;
  batch.tokens_N = std::move(packed.tokens);
  batch.positions_N = std::move(packed.positions);
  batch.document_offsets = std::move(packed.document_offsets);
  batch.labels_N = std::move(packed.labels);
  batch.weights_N = std::move(packed.weights);
  return batch;
}

// Of its supervised_tokens(), in order.
inline std::vector<int32_t> supervised_labels(const Batch& batch) {
  std::vector<int32_t> labels;
  for (const auto token : batch.supervised_tokens()) labels.push_back(batch.labels_N[static_cast<size_t>(token)]);
  return labels;
}

}  // namespace graft
