// Cosines and sines of rotary embedding, float32 (transformers' modeling_rope_utils.py: default, linear, llama3).
#pragma once
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/models/decoder_spec.h"

namespace graft {

struct RopeTable {
  at::Tensor cosine_PE, sine_PE;   // [positions, rotary_size / 2]
};

// Angles per position: one for each pair.
std::vector<float> rope_frequencies(const RopeSpec& spec);
RopeTable make_rope_table(const RopeSpec& spec, int64_t num_positions);

}  // namespace graft
