// Cosines and sines of rotary embedding, float32 (transformers' modeling_rope_utils.py: default, linear, llama3, yarn, longrope).
#pragma once
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/models/decoder_spec.h"

namespace graft {

struct RopeTable {
  at::Tensor cosine_PE, sine_PE;   // [positions, rotary_size / 2]; longrope: of short rows, and over `num_positions` rows further on of long ones
  at::Tensor query_scale_P;        // undefined: 1
  bool neighbouring_pairs = false;
  int64_t num_positions = 0;
  int64_t longest_short = 0;       // longrope: documents above this many tokens are long; 0: one table
};

// Angles per position: one for each pair. `long_rows`: those of longrope's long rows.
std::vector<float> rope_frequencies(const RopeSpec& spec, bool long_rows = false);
RopeTable make_rope_table(const RopeSpec& spec, int64_t num_positions);

}  // namespace graft
