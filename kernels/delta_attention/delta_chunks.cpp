#include "kernels/delta_attention/delta_chunks.h"

#include <algorithm>

namespace graft {

DeltaChunks delta_chunks(std::span<const int32_t> document_offsets, int32_t chunk_tokens) {
  DeltaChunks cut;
  cut.first_chunks.push_back(0);
  for (size_t d = 0; d + 1 < document_offsets.size(); ++d) {
    const int32_t begin = document_offsets[d], end = document_offsets[d + 1];
    for (int32_t first = begin; first < end; first += chunk_tokens) cut.chunks.push_back({begin, end, first, std::min(chunk_tokens, end - first)});
    if (end > begin) cut.first_chunks.push_back(static_cast<int32_t>(cut.chunks.size()));
  }
  return cut;
}

}  // namespace graft
