// kimi_linear: Kimi Delta Attention in most layers, latent attention without positions in the others; DeepSeek V3's router, experts and dense first layers.
#include <algorithm>

#include "kernels/common/error.h"
#include "trainer/models/families/latent_layers.h"

namespace graft {
namespace kimi_linear {

using nlohmann::ordered_json;

constexpr int64_t kMostHeads = 4096, kLargestHead = 4096, kMostTaps = 64;

// Keys of the hub as DeepSeek V3 calls them. transformers 5 writes those of the second kind.
ordered_json as_deepseek(const ordered_json& config) {
  static const std::pair<const char*, const char*> kNames[] = {
      {"model_max_length", "max_position_embeddings"}, {"num_experts", "n_routed_experts"}, {"num_local_experts", "n_routed_experts"}, {"num_experts_per_token", "num_experts_per_tok"},
      {"num_shared_experts", "n_shared_experts"}, {"moe_renormalize", "norm_topk_prob"}, {"num_expert_group", "n_group"}, {"moe_router_activation_func", "scoring_func"}};
  auto result = config;
  for (const auto& [theirs, ours] : kNames) {
    if (!result.contains(theirs)) continue;
    if (!result.contains(ours)) result[ours] = result[theirs];
    if (result[ours] == result[theirs]) result.erase(theirs);
  }
  return result;
}

// From linear_attn_config (layers counted from 1), or from transformers' own keys.
std::vector<bool> read_delta(ConfigReader& reader, size_t layers, DeltaAttentionSpec& delta) {
  std::vector<bool> linear(layers, false);
  int64_t heads = 32, size = 128;
  if (reader.has("linear_attn_config")) {
    const auto& values = reader.at("linear_attn_config");
    const auto number = [&](const char* key, int64_t largest) {
      const auto value = values.value(key, ordered_json());
      if (value.is_number_integer() && value.get<int64_t>() >= 1 && value.get<int64_t>() <= largest) return value.get<int64_t>();
      reader.wrong("linear_attn_config", fmt::format("{} from 1 to {}", key, largest));
      return int64_t{1};
    };
    heads = number("num_heads", kMostHeads);
    size = number("head_dim", kLargestHead);
    delta.taps = number("short_conv_kernel_size", kMostTaps);
    size_t named = 0;
    for (const auto* key : {"kda_layers", "full_attn_layers"}) {
      for (const auto& layer : values.value(key, ordered_json::array())) {
        const bool known = layer.is_number_integer() && layer.get<int64_t>() >= 1 && layer.get<int64_t>() <= static_cast<int64_t>(layers);
        if (!known) continue;
        ++named;
        linear[layer.get<size_t>() - 1] = std::string_view(key) == "kda_layers";
      }
    }
    if (named != layers) reader.wrong("linear_attn_config", "every layer once in kda_layers or full_attn_layers");
  } else {
    heads = reader.has("linear_num_heads") ? reader.need_int("linear_num_heads", 1, kMostHeads) : heads;
    size = reader.has("linear_head_dim") ? reader.need_int("linear_head_dim", 1, kLargestHead) : size;
    delta.taps = reader.has("linear_conv_kernel_dim") ? reader.need_int("linear_conv_kernel_dim", 1, kMostTaps) : delta.taps;
    for (size_t layer = 0; layer < layers; ++layer) {
      const auto& types = reader.at("layer_types");
      if (types.is_array() && types.size() == layers) linear[layer] = types[layer] == "linear_attention";
    }
  }
  reader.ignore({"linear_attn_config", "linear_num_heads", "linear_head_dim", "linear_conv_kernel_dim", "layer_types"});
  delta.form = DeltaAttentionSpec::Form::kLowRank;
  delta.num_key_heads = delta.num_value_heads = heads;
  delta.key_size = delta.value_size = size;
  return linear;
}

void set_layers(DecoderSpec& spec, const DeltaAttentionSpec& delta, const std::vector<bool>& linear) {
  for (size_t layer = 0; layer < spec.layers.size(); ++layer) {
    auto& mixer = spec.layers[layer].mixer;
    if (linear[layer]) mixer = delta;
    else std::get<LatentAttentionSpec>(mixer).rope.reset();
  }
  spec.ropes.clear();
}

DecoderSpec from_config(const ordered_json& hub_config) {
  const auto config = as_deepseek(hub_config);
  ConfigReader reader(config, "kimi_linear");
  LlamaDefaults defaults;
  defaults.own_ropes = true;
  auto spec = llama_like_spec(reader, "kimi_linear", defaults);
  DeltaAttentionSpec delta;
  const auto linear = read_delta(reader, spec.layers.size(), delta);
  delta.norm_epsilon = spec.final_norm.epsilon;
  read_latent_attention(reader, spec, false);
  if (!reader.bool_or("mla_use_nope", true)) reader.wrong("mla_use_nope", "true");
  reader.bool_or("use_grouped_topk", true);
  auto experts = read_deepseek_experts(reader);
  read_sigmoid_router(reader, experts.router);
  const auto dense = read_mlp_layer_types(reader, reader.has("mlp_layer_types") ? 0 : reader.need_int("first_k_dense_replace", 0));
  reader.finish();
  set_layers(spec, delta, linear);
  set_experts(spec, experts, dense);
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  const GgufReader reader(file);
  auto spec = latent_spec_from_gguf(file, "kimi_linear");
  DeltaAttentionSpec delta;
  delta.form = DeltaAttentionSpec::Form::kLowRank;
  delta.num_key_heads = delta.num_value_heads = reader.need_int("attention.head_count", kMostHeads);
  delta.key_size = delta.value_size = reader.need_int("kda.head_dim", kLargestHead);
  delta.taps = reader.need_int("ssm.conv_kernel", kMostTaps);
  delta.norm_epsilon = spec.final_norm.epsilon;
  std::vector<bool> linear;
  for (size_t layer = 0; layer < spec.layers.size(); ++layer) linear.push_back(has_tensor(file, fmt::format("blk.{}.ssm_a", layer).c_str()));
  set_layers(spec, delta, linear);
  for (auto& layer : spec.layers) {   // llama.cpp normalises in any case
    if (auto* experts = std::get_if<ExpertsSpec>(&layer.channel)) experts->router.renormalise = true;
  }
  return spec;
}

WeightMap weights(const DecoderSpec& spec) {
  const auto below = [](const char* name) { return fmt::format("self_attn.{}", name); };
  auto map = latent_weights(spec, llama_names_with({{"router", {"block_sparse_moe.gate", "ffn_gate_inp"}},
                                                    {"router.selection_bias", {"block_sparse_moe.gate.e_score_correction_bias", "exp_probs_b.bias"}},
                                                    {"experts.gate", {"block_sparse_moe.experts.*.w1", "ffn_gate_exps"}},
                                                    {"experts.up", {"block_sparse_moe.experts.*.w3", "ffn_up_exps"}},
                                                    {"experts.down", {"block_sparse_moe.experts.*.w2", "ffn_down_exps"}},
                                                    {"shared.gate", {"block_sparse_moe.shared_experts.gate_proj", "ffn_gate_shexp"}},
                                                    {"shared.up", {"block_sparse_moe.shared_experts.up_proj", "ffn_up_shexp"}},
                                                    {"shared.down", {"block_sparse_moe.shared_experts.down_proj", "ffn_down_shexp"}},
                                                    {"delta.query", {below("q_proj"), "attn_q"}},
                                                    {"delta.key", {below("k_proj"), "attn_k"}},
                                                    {"delta.value", {below("v_proj"), "attn_v"}},
                                                    {"delta.decay_a", {below("f_a_proj"), "ssm_f_a"}},
                                                    {"delta.decay_b", {below("f_b_proj"), "ssm_f_b"}},
                                                    {"delta.beta", {below("b_proj"), "ssm_beta"}},
                                                    {"delta.gate_a", {below("g_a_proj"), "ssm_g_a"}},
                                                    {"delta.gate_b", {below("g_b_proj"), "ssm_g_b"}},
                                                    {"delta.convolution.query", {below("q_conv1d"), "ssm_conv1d_q"}},
                                                    {"delta.convolution.key", {below("k_conv1d"), "ssm_conv1d_k"}},
                                                    {"delta.convolution.value", {below("v_conv1d"), "ssm_conv1d_v"}},
                                                    {"delta.decay_rate", {below("A_log"), "ssm_a"}},
                                                    {"delta.decay_bias", {below("dt_bias"), "ssm_dt.bias"}},
                                                    {"delta.norm", {below("o_norm"), "ssm_norm"}},
                                                    {"delta.output", {below("o_proj"), "attn_output"}}}));
  for (auto& rule : map.rules) {
    if (rule.ours.ends_with(".delta.decay_rate")) rule.hub_form.whole = rule.gguf_form.whole = {1, 1, rule.shape[0], 1};
    // transformers' class has modules of its own where the hub has names; PEFT's adapters carry the class's.
    for (const auto& [hub, module] : {std::pair{".self_attn.f_", ".self_attn.forget_gate.f_"}, std::pair{".block_sparse_moe.shared_experts.", ".mlp.shared_experts."}}) {
      const std::string name = rule.hub.ends_with(".weight") ? rule.hub.substr(0, rule.hub.size() - 7) : rule.hub;
      if (const auto at = name.find(hub); at != std::string::npos) rule.module = std::string(name).replace(at, std::string_view(hub).size(), module);
    }
  }
  map.hub_aliases = {{".block_sparse_moe.", ".mlp."}, {".mlp.", ".block_sparse_moe."}};   // beside stacked experts; transformers 5 writes dense layers so
  return map;
}

void add_config(const DecoderSpec& spec, ordered_json& config) {
  write_latent_config(spec, config);
  const DeltaAttentionSpec* delta = nullptr;
  auto linear = ordered_json::array(), full = ordered_json::array();
  for (size_t layer = 0; layer < spec.layers.size(); ++layer) {
    if (spec.layers[layer].delta_attention()) delta = spec.layers[layer].delta_attention();
    (spec.layers[layer].delta_attention() ? linear : full).push_back(layer + 1);
  }
  for (const auto& [ours, hub] : {std::pair{"max_position_embeddings", "model_max_length"}, std::pair{"n_routed_experts", "num_experts"}, std::pair{"num_experts_per_tok", "num_experts_per_token"},
                                  std::pair{"n_shared_experts", "num_shared_experts"}, std::pair{"norm_topk_prob", "moe_renormalize"}, std::pair{"n_group", "num_expert_group"}}) {
    config[hub] = config[ours];
    config.erase(ours);
  }
  config["moe_router_activation_func"] = "sigmoid";
  config["mla_use_nope"] = true;
  config["linear_attn_config"] = {{"full_attn_layers", full}, {"head_dim", delta ? delta->key_size : 128}, {"kda_layers", linear}, {"num_heads", delta ? delta->num_key_heads : 32},
                                  {"short_conv_kernel_size", delta ? delta->taps : 4}};
}

void add_gguf(const DecoderSpec& spec, GgufKeys& keys) {
  std::vector<int64_t> key_heads;
  const DeltaAttentionSpec* delta = nullptr;
  for (const auto& layer : spec.layers) {
    if (layer.delta_attention()) delta = layer.delta_attention();
    key_heads.push_back(layer.delta_attention() ? 0 : 1);
  }
  if (!delta || !spec.attention_layer().latent_attention()) refuse(keys, "layers of both kinds");
  if (delta->num_key_heads != spec.attention_layer().latent_attention()->num_heads) refuse(keys, "as many heads in linear as in latent attention");
  if (!spec.experts()->router.renormalise) refuse(keys, "normalised weights of experts");
  if (spec.tied_head) refuse(keys, "an output matrix beside the embedding");
  write_latent_gguf(spec, keys);
  keys.list("attention.head_count_kv", key_heads);
  keys.u32("rope.dimension_count", spec.attention_layer().latent_attention()->rotary_size);
  keys.u32("ssm.conv_kernel", delta->taps);
  keys.u32("kda.head_dim", delta->key_size);
}

}  // namespace kimi_linear

Family kimi_linear_family() {
  using namespace kimi_linear;
  return {"kimi_linear", "KimiLinearForCausalLM", "kimi-linear", from_config, from_gguf, weights, add_config, add_gguf};
}

}  // namespace graft
