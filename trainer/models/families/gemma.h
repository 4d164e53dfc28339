// What gemma2 and gemma3_text share: norms before and after both halves of a layer, stored minus 1 on the hub; GELU; scaled embeddings.
#pragma once
#include "trainer/models/families/llama_like.h"

namespace graft {

LlamaDefaults gemma_defaults();
void set_gemma_layers(DecoderSpec& spec);
WeightMap gemma_weights(const DecoderSpec& spec);
void add_gemma_config(const DecoderSpec& spec, nlohmann::ordered_json& config);

// Which layers slide, as llama.cpp says it: all but the last of each period. UserError where the spec's layers follow no period.
int64_t window_period(const DecoderSpec& spec);
void add_gemma_gguf(const DecoderSpec& spec, GgufKeys& keys, int64_t default_period);

}  // namespace graft
