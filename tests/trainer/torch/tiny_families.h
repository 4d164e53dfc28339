// A tiny configuration of every family that graft knows: what its own tests of batches, caches, training and exports run on.
#pragma once
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "trainer/models/families/family.h"

namespace graft::test {

// vocab_size at least what the test's tokenizer has.
inline nlohmann::ordered_json tiny_config(const std::string& model_type, int64_t vocab_size = 258) {
  using Json = nlohmann::ordered_json;
  const Json llama = {{"model_type", model_type},   {"vocab_size", vocab_size},    {"hidden_size", 32},
                      {"intermediate_size", 48},    {"num_hidden_layers", 2},      {"num_attention_heads", 4},
                      {"num_key_value_heads", 2},   {"head_dim", 8},               {"max_position_embeddings", 512},
                      {"rms_norm_eps", 1e-3},       {"rope_theta", 10000.0},       {"tie_word_embeddings", false}};
  const Json latent = {{"num_key_value_heads", 4}, {"head_dim", nullptr}, {"rms_norm_eps", 1e-6}, {"q_lora_rank", 16}, {"kv_lora_rank", 32}, {"qk_nope_head_dim", 32},
                       {"qk_rope_head_dim", 6}, {"v_head_dim", 10}, {"n_routed_experts", 4}, {"num_experts_per_tok", 2}, {"moe_intermediate_size", 24}, {"n_shared_experts", 1},
                       {"routed_scaling_factor", 1.5}, {"first_k_dense_replace", 1}, {"n_group", 1}, {"topk_group", 1}};
  const auto with_latents = [&](const Json& more) {
    auto all = latent;
    all.update(more);
    return all;
  };
  const auto with_delta = [](const Json& more) {
    Json all = {{"num_hidden_layers", 4}, {"rms_norm_eps", 1e-6}, {"linear_num_key_heads", 2}, {"linear_num_value_heads", 4}, {"linear_key_head_dim", 8}, {"linear_value_head_dim", 8}};
    all.update(more);
    return all;
  };
  const auto with_indexer = [&](const Json& more) {   // sizes that llama.cpp takes; with few heads many scores are zero, and zeros have no order
    auto all = with_latents({{"qk_rope_head_dim", 32}, {"index_n_heads", 16}, {"index_head_dim", 64}, {"index_topk", 9}});
    all.update(more);
    return all;
  };
  const std::map<std::string, Json> extra = {
      {"mistral", {{"sliding_window", 9}}},
      {"ministral3", {{"rope_theta", nullptr}, {"rope_parameters", {{"rope_type", "yarn"}, {"rope_theta", 10000.0}, {"factor", 4.0}, {"original_max_position_embeddings", 8},
                                                                    {"mscale", 1.0}, {"mscale_all_dim", 1.0}, {"llama_4_scaling_beta", 0.2}}}}},
      {"smollm3", {{"num_hidden_layers", 4}}},
      {"phi3", {{"head_dim", nullptr}, {"original_max_position_embeddings", 256},
                {"rope_scaling", {{"type", "longrope"}, {"short_factor", {1.0, 1.1, 1.2, 1.3}}, {"long_factor", {1.0, 2.0, 3.0, 4.0}}}}}},
      {"PanguEmbedded", {{"bias", true}}},
      {"mixtral", {{"num_local_experts", 4}, {"num_experts_per_tok", 2}}},
      {"qwen2_moe", {{"head_dim", nullptr}, {"num_experts", 5}, {"num_experts_per_tok", 2}, {"moe_intermediate_size", 24}, {"shared_expert_intermediate_size", 40}}},
      {"qwen3_moe", {{"num_experts", 5}, {"num_experts_per_tok", 2}, {"moe_intermediate_size", 24}, {"norm_topk_prob", true}}},
      {"glm4_moe", {{"n_routed_experts", 4}, {"num_experts_per_tok", 2}, {"moe_intermediate_size", 24}, {"routed_scaling_factor", 1.5}}},
      {"hunyuan_v1_moe", {{"num_experts", 4}, {"moe_topk", 2}}},
      {"ernie4_5_moe", {{"moe_num_experts", 4}, {"moe_k", 2}, {"moe_intermediate_size", 24}}},
      {"gpt_oss", {{"num_local_experts", 4}, {"num_experts_per_tok", 2}, {"sliding_window", 9}, {"layer_types", {"sliding_attention", "full_attention"}},
                   {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 10000.0}}}}},   // its default, YaRN with unrounded bounds, GGUF cannot say
      {"deepseek_v2", with_latents({{"topk_method", "greedy"}})},
      {"deepseek_v3", with_latents({{"n_group", 2}, {"qk_rope_head_dim", 8}, {"rope_scaling", {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 8}, {"mscale", 1.0},
                                                                      {"mscale_all_dim", 1.0}}}})},
      {"kimi_k2", with_latents({{"v_head_dim", 40}})},
      {"glm4_moe_lite", with_latents({{"n_shared_experts", 2}})},
      // A query sees 9 keys: the tests' documents are longer.
      {"deepseek_v32", with_indexer({{"n_group", 2}})},
      {"glm_moe_dsa", with_indexer({{"num_hidden_layers", 3}, {"indexer_types", {"full", "shared", "full"}}})},
      {"qwen3_next", with_delta({{"num_experts", 5}, {"num_experts_per_tok", 2}, {"moe_intermediate_size", 24}, {"shared_expert_intermediate_size", 40}})},
      {"qwen3_5_text", with_delta({{"linear_num_value_heads", 6}})},
      {"qwen3_5_moe_text", with_delta({{"num_experts", 5}, {"num_experts_per_tok", 2}, {"moe_intermediate_size", 24}, {"shared_expert_intermediate_size", 40}})},
      {"kimi_linear", with_latents({{"num_hidden_layers", 3}, {"moe_router_activation_func", "sigmoid"}, {"moe_renormalize", true},
                                    {"linear_attn_config", {{"full_attn_layers", {2}}, {"kda_layers", {1, 3}}, {"head_dim", 8}, {"num_heads", 4}, {"short_conv_kernel_size", 4}}}})},
      {"gemma2", {{"query_pre_attn_scalar", 8}, {"sliding_window", 9}, {"attn_logit_softcapping", 4.0}, {"final_logit_softcapping", 6.0}, {"tie_word_embeddings", true}}},
      {"gemma3_text", {{"query_pre_attn_scalar", 8}, {"sliding_window", 9}, {"sliding_window_pattern", 2}, {"tie_word_embeddings", true}}},
  };
  if (model_type == "chatglm") {
    return {{"model_type", "chatglm"}, {"padded_vocab_size", vocab_size}, {"hidden_size", 32}, {"ffn_hidden_size", 48}, {"num_layers", 2}, {"num_attention_heads", 4},
            {"kv_channels", 8}, {"multi_query_attention", true}, {"multi_query_group_num", 2}, {"seq_length", 512}, {"layernorm_epsilon", 1e-3}, {"add_qkv_bias", true}};
  }
  if (model_type == "bloom") {
    return {{"model_type", "bloom"}, {"vocab_size", vocab_size}, {"hidden_size", 32}, {"n_layer", 2}, {"n_head", 4}, {"seq_length", 512}, {"layer_norm_epsilon", 1e-3}};
  }
  if (model_type == "gpt2") {
    return {{"model_type", "gpt2"}, {"vocab_size", vocab_size}, {"n_embd", 32}, {"n_layer", 2}, {"n_head", 4}, {"n_positions", 512}, {"layer_norm_epsilon", 1e-3}};
  }
  auto config = llama;
  if (const auto found = extra.find(model_type); found != extra.end()) {
    for (const auto& [key, value] : found->second.items()) {
      if (value.is_null()) config.erase(key);
      else config[key] = value;
    }
  }
  if (model_type == "deepseek_v2" || model_type == "kimi_linear") config["q_lora_rank"] = nullptr;   // as in V2-Lite: queries without a latent
  return config;
}

inline std::vector<std::string> every_family() {
  std::vector<std::string> names;
  for (const auto& family : families()) names.push_back(family.model_type);
  return names;
}

}  // namespace graft::test
