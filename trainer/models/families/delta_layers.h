// What Qwen's families with Gated DeltaNet layers share: their keys of linear attention in config.json and in GGUF headers, gated softmax layers, norms of 1 + weight.
#pragma once
#include "trainer/models/families/expert_layers.h"
#include "trainer/models/families/llama_like.h"

namespace graft {

// Defaults of these classes: heads of 256 elements, a quarter of which turns.
LlamaDefaults delta_defaults();
// Gives layers that are not full attention (layer_types, or all but every full_attention_interval-th) a DeltaAttentionSpec, and the others head norms and output
// gates. The reader's keys: linear_*, attention_bias.
void read_delta_layers(ConfigReader& reader, DecoderSpec& spec, DeltaAttentionSpec::Form form);
// A shared expert behind a sigmoid gate.
ExpertsSpec read_shared_expert(ConfigReader& reader, bool renormalise);

DecoderSpec delta_spec_from_gguf(const GgufFile& file, const std::string& family, DeltaAttentionSpec::Form form, bool tiled_value_heads);
WeightMap delta_weights(const DecoderSpec& spec);
void add_delta_config(const DecoderSpec& spec, nlohmann::ordered_json& config);
void add_delta_gguf(const DecoderSpec& spec, GgufKeys& keys);

}  // namespace graft
