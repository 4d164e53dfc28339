// How packed documents are cut into chunks of the delta rule's kernels. A pure function of lengths; no Torch.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/delta_attention/delta_attention.cuh"

namespace graft {

struct DeltaChunks {
  std::vector<cuda::DeltaChunk> chunks;
  std::vector<int32_t> first_chunks;   // of each document that has tokens, and behind the last
  int num_documents() const { return static_cast<int>(first_chunks.size()) - 1; }
};

DeltaChunks delta_chunks(std::span<const int32_t> document_offsets, int32_t chunk_tokens);

}  // namespace graft
