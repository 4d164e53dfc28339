#include "trainer/models/batch.h"

namespace graft {

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
    std::vector<KeyValueCache> selected;
    selected.reserve(sequences.size());
    for (const auto s : sequences) {   // the last use moves, earlier ones copy
      if (--uses[s] == 0) selected.push_back(std::move(layer[s]));
      else selected.push_back(layer[s]);
    }
    layer = std::move(selected);
  }
}

}  // namespace graft
