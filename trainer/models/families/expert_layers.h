// What families with experts share: the keys of their routers and the layers that have some, in config.json and in GGUF headers.
#pragma once
#include <initializer_list>
#include <set>

#include "trainer/models/families/config_reader.h"
#include "trainer/models/families/family.h"
#include "trainer/models/families/gguf_keys.h"

namespace graft {

// The number of experts under whichever of `count_keys` is there, and num_experts_per_tok; 0 as a default: the key must be there. The weights of auxiliary
// losses and what a class reports beside its logits are read and left.
RouterSpec read_router(ConfigReader& reader, std::initializer_list<const char*> count_keys, int64_t num_experts = 0, int64_t experts_per_token = 0,
                       const char* chosen_key = "num_experts_per_tok");

// n_group and topk_group: experts are chosen from the best groups only.
void read_groups(ConfigReader& reader, RouterSpec& router);

using DenseLayers = std::set<int64_t>;
// Qwen's keys: num_experts, norm_topk_prob, moe_intermediate_size; mlp_only_layers and decoder_sparse_step: layer i has experts where (i + 1) is a multiple
// of the step.
ExpertsSpec read_qwen_experts(ConfigReader& reader, bool renormalise = false);   // where norm_topk_prob is absent
DenseLayers read_qwen_dense_layers(ConfigReader& reader);
void add_qwen_experts(const DecoderSpec& spec, nlohmann::ordered_json& config);
std::vector<int64_t> dense_layers(const DecoderSpec& spec);
// Puts experts into all layers but the dense ones, which keep their MLP.
void set_experts(DecoderSpec& spec, const ExpertsSpec& experts, const DenseLayers& dense);

// expert_count, expert_used_count, expert_feed_forward_length, expert_shared_feed_forward_length and the router's keys, as far as they are there.
ExpertsSpec experts_from_gguf(const GgufFile& file);
// Those of the spec's layers whose tensors are an MLP's.
DenseLayers dense_layers_of(const GgufFile& file, const DecoderSpec& spec);
void write_experts(const DecoderSpec& spec, GgufKeys& keys);
void write_gating(const DecoderSpec& spec, GgufKeys& keys);

// UserError where llama.cpp's graph of this family computes something else: `expected` is what it computes.
[[noreturn]] void refuse(const GgufKeys& keys, const char* expected);
void refuse_dense_layers(const DecoderSpec& spec, const GgufKeys& keys);
void refuse_weights(const DecoderSpec& spec, const GgufKeys& keys, bool normalised);   // the router's, where they are so
void refuse_unequal_choices(const DecoderSpec& spec, const GgufKeys& keys);

}  // namespace graft
