// Launch arguments of delta attention (formulas in delta_attention.h). Rows are contiguous and, as all pointers, lie at multiples of 16 bytes in device memory.
//
// Documents are cut into chunks (delta_chunks.h). Within a chunk the rule is a product by the inverse of a unit lower triangular matrix (WY form: Yang et al.
// 2024, arXiv 2406.06484 and 2412.06464), so that states are passed on once a chunk. Decays are exponentials of differences of summed logarithms, at most 1.
// Sums and states are float32 and have one order: the same bits in every run.
#pragma once
#include <cstdint>

#include "kernels/cuda/row_type.cuh"

namespace graft::cuda {

constexpr int kMostDeltaTaps = 8, kMostDeltaSize = 128;
constexpr float kDeltaNormEpsilon = 1e-6F;   // of queries and keys

// The kernels' head size, for keys and values alike, that takes heads of these sizes, or 0: none does.
constexpr int delta_size(int key_size, int value_size) {
  const int larger = key_size > value_size ? key_size : value_size;
  return larger <= 64 ? 64 : larger <= kMostDeltaSize ? kMostDeltaSize : 0;
}
// Tokens of a chunk: as many as leave shared memory below 99 KiB.
constexpr int delta_chunk_tokens(bool is_float32, bool channel_decay) { return is_float32 || channel_decay ? 32 : 64; }

struct DeltaChunk {
  int32_t document_begin, document_end, first, count;   // tokens
};

struct DeltaProblem {
  RowType type;                    // float32 or bfloat16, of all rows
  int64_t num_tokens;
  int num_key_heads, num_value_heads, key_size, value_size, taps;
  bool tiled_value_heads, channel_decay, silu_gate;
  float norm_epsilon;
  const void *qkv_NC, *a_NA, *b_NH, *z_NV;
  const float *convolution_CK, *decay_rate_H, *decay_bias_A, *norm_weight_V;
  const DeltaChunk* chunks;        // document after document
  int num_chunks;
  const int32_t* first_chunks;     // [num_documents + 1], of documents that have tokens
  int num_documents;
  // Scratch. Rows of heads are padded with zeros to P = delta_size().
  void *queries, *keys;            // [N, G, P], normalised
  void* values;                    // [N, H, P]
  void *solved_keys, *ended_keys;  // [N, H, P]: W = T beta K+ and K- of delta_chunk.cuh
  float* chunk_decays;             // [chunks, H, P], or [chunks, H] without channel_decay
};

struct DeltaAttentionForward {
  DeltaProblem problem;
  float* states;                   // [chunks, H, P, P], that the chunks found: the backward pass takes them
  void* out_NV;
};

struct DeltaAttentionBackward {
  DeltaProblem problem;
  const float* states;
  const void* dout_NV;
  // Scratch.
  float* dstates;                  // [chunks, H, P, P], of those behind the chunks
  void *doutput, *dvalues;         // [N, H, P]: of what was read out, before the norm
  void *dqueries, *dkeys;          // [N, H, P]: of each value head
  // Gradients.
  void *dqkv_NC, *da_NA, *db_NH, *dz_NV;
};

// Null, or the driver's words. `stream` is a cudaStream_t.
const char* launch(const DeltaAttentionForward& arguments, void* stream);
const char* launch(const DeltaAttentionBackward& arguments, void* stream);

}  // namespace graft::cuda
