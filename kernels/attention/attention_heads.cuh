// Launch arguments of what comes before attention (formula in attention.h): per-head RMS norm, rotary embedding and query scale. Pointers are device memory.
#pragma once
#include <cstdint>

#include "kernels/attention/attention.cuh"

namespace graft::cuda {

struct HeadPreparation {
  HeadRows heads;                      // [N, heads]: queries, then keys, as they come from their projections
  RowType type;
  int num_tokens, num_query_heads, num_kv_heads, head_size;   // head_size even, at most 256
  const float* query_norm_D;           // null: no norm
  const float* key_norm_D;
  float epsilon;
  bool norm_after_rotation;
  const float* cosine_PE;              // null: no rotation
  const float* sine_PE;
  int rotary_pairs;                    // E: the first 2E elements turn
  bool neighbouring_pairs;
  const float* query_scale_P;          // null: 1
  const int32_t* positions_N;
};

struct HeadPreparationForward {
  HeadPreparation of;
  MutableHeadRows prepared;
};

struct HeadPreparationBackward {
  HeadPreparation of;
  HeadRows gradient;                   // of `prepared`
  MutableHeadRows heads_gradient;
};

// Null, or the driver's words. `stream` is a cudaStream_t.
const char* launch(const HeadPreparationForward& arguments, void* stream);
const char* launch(const HeadPreparationBackward& arguments, void* stream);

}  // namespace graft::cuda
