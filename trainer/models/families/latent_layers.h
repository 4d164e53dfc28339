// What families with latent attention share: DeepSeek's keys of attention and experts in config.json, and GGUF's architecture deepseek2, which holds all of them.
#pragma once
#include <optional>

#include "trainer/models/families/expert_layers.h"
#include "trainer/models/families/llama_like.h"

namespace graft {

// Replaces the attention of all layers; reads the rotary keys. Interleaved: rotary pairs are neighbours.
void read_latent_attention(ConfigReader& reader, DecoderSpec& spec, bool interleaved);
// n_routed_experts, moe_intermediate_size, n_shared_experts, routed_scaling_factor; keys of auxiliary losses and of further layers are read and left.
ExpertsSpec read_deepseek_experts(ConfigReader& reader);
// DeepSeek-V3's: sigmoid scores, a selection bias, groups by their two best.
void read_sigmoid_router(ConfigReader& reader, RouterSpec& router);
// first_k_dense_replace.
DenseLayers read_first_dense_layers(ConfigReader& reader);
// mlp_layer_types, a list; without it the first `first` layers. first_k_dense_replace beside it must say the same, or be what transformers' class has by default
// and writes beside any list.
DenseLayers read_mlp_layer_types(ConfigReader& reader, int64_t first, std::optional<int64_t> class_default = {});
void write_mlp_layer_types(const DecoderSpec& spec, nlohmann::ordered_json& config);

// deepseek_v3 with sigmoid scores, deepseek_v2 with softmax: other families of this architecture are computed alike.
DecoderSpec latent_spec_from_gguf(const GgufFile& file);
DecoderSpec latent_spec_from_gguf(const GgufFile& file, const std::string& family);
// Layers behind the last, which predict further tokens, are skipped.
WeightMap latent_weights(const DecoderSpec& spec);
WeightMap latent_weights(const DecoderSpec& spec, const WeightNames& names);
void write_latent_config(const DecoderSpec& spec, nlohmann::ordered_json& config);
void write_latent_gguf(const DecoderSpec& spec, GgufKeys& keys);

}  // namespace graft
