// hunyuan_v1_moe: Hunyuan-A13B. hunyuan_v1_dense with experts and a shared MLP of their width in every layer.
#include "trainer/models/families/expert_layers.h"
#include "trainer/models/families/llama_like.h"

namespace graft {
namespace hunyuan_v1_moe {

// A number for all layers, or a list with one for each.
std::vector<int64_t> per_layer(ConfigReader& reader, const char* key, size_t layers, int64_t otherwise) {
  if (!reader.has(key)) {
    reader.ignore({key});
    return std::vector<int64_t>(layers, otherwise);
  }
  const auto& value = reader.at(key);
  const auto whole = [](const nlohmann::ordered_json& item) { return item.is_number_integer() && item.get<int64_t>() > 0; };
  if (whole(value)) return std::vector<int64_t>(layers, value.get<int64_t>());
  if (value.is_array() && value.size() >= layers && std::all_of(value.begin(), value.end(), whole)) return value.get<std::vector<int64_t>>();
  reader.wrong(key, "a number from 1 on, or a list with one for each layer");
  return std::vector<int64_t>(layers, otherwise);
}

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "hunyuan_v1_moe");
  auto spec = llama_like_spec(reader, "hunyuan_v1_moe");
  const auto layers = spec.layers.size();
  const bool biases = reader.bool_or("attention_bias", false);
  for (auto& layer : spec.layers) layer.attention().input_bias = layer.attention().output_bias = biases;
  ExpertsSpec experts;
  experts.router.num_experts = reader.need_int("num_experts", 1, 65536);
  experts.router.renormalise = true;
  experts.width = experts.shared_width = spec.dense_width();
  const auto chosen = per_layer(reader, "moe_topk", layers, 1);
  const auto widths = per_layer(reader, "moe_intermediate_size", layers, experts.width), shared = per_layer(reader, "num_shared_expert", layers, 1);
  for (size_t layer = 0; layer < layers; ++layer) {
    if (widths[layer] != experts.width) reader.wrong("moe_intermediate_size", "intermediate_size, as transformers' class has it");
    if (shared[layer] != 1) reader.wrong("num_shared_expert", "1, as transformers' class has it");
    if (chosen[layer] > experts.router.num_experts) reader.wrong("moe_topk", "at most num_experts");
    experts.router.experts_per_token = chosen[layer];
    spec.layers[layer].channel = experts;
  }
  reader.expect_false({"use_cla", "add_classification_head", "mlp_bias", "use_mla", "group_limited_greedy", "moe_drop_tokens"});
  for (const char* key : {"use_qk_norm", "use_rotary_pos_emb", "use_mixed_mlp_moe", "norm_topk_prob"}) {
    if (!reader.bool_or(key, true)) reader.wrong(key, "true");
  }
  if (reader.string_or("norm_type", "rms") != "rms") reader.wrong("norm_type", "rms");
  if (reader.int_or("moe_layer_num_skipped", 0) != 0) reader.wrong("moe_layer_num_skipped", "0");
  if (reader.float_or("routed_scaling_factor", 1) != 1) reader.wrong("routed_scaling_factor", "1");
  reader.ignore({"attention_head_dim", "cla_share_factor", "class_num", "dense_list", "im_end_id", "im_newline_id", "im_start_id", "image_token_id", "mask_init_id",
                 "org_vocab_size", "pad_id", "sep_token_id", "text_end_id", "text_start_id", "eod_token_id", "moe_random_routing_dropped_token",
                 "output_router_logits", "capacity_factor"});
  reader.finish();
  set_head_norms(spec, AttentionSpec::HeadNorm::kAfterRotation);
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  auto spec = llama_like_spec(file, "hunyuan_v1_moe");
  auto experts = experts_from_gguf(file);
  experts.router.renormalise = true;
  if (experts.shared_width == 0) experts.shared_width = experts.width;
  set_experts(spec, experts, {});
  set_head_norms(spec, AttentionSpec::HeadNorm::kAfterRotation);
  return spec;
}

WeightMap weights(const DecoderSpec& spec) {
  return weight_map_of(spec, llama_names_with({{"attention.query_norm", {"self_attn.query_layernorm", "attn_q_norm"}},
                                               {"attention.key_norm", {"self_attn.key_layernorm", "attn_k_norm"}},
                                               {"router", {"mlp.gate.wg", "ffn_gate_inp"}},
                                               {"shared.gate", {"mlp.shared_mlp.gate_proj", "ffn_gate_shexp"}},
                                               {"shared.up", {"mlp.shared_mlp.up_proj", "ffn_up_shexp"}},
                                               {"shared.down", {"mlp.shared_mlp.down_proj", "ffn_down_shexp"}}}));
}

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  config["attention_bias"] = spec.layers[0].attention().output_bias;
  config["num_experts"] = spec.experts()->router.num_experts;
  std::vector<int64_t> chosen;
  for (const auto& layer : spec.layers) chosen.push_back(layer.experts()->router.experts_per_token);
  config["moe_topk"] = chosen;
}

void add_gguf(const DecoderSpec& spec, GgufKeys& keys) {
  refuse_biases(spec, keys);
  refuse_unequal_choices(spec, keys);
  write_experts(spec, keys);
}

}  // namespace hunyuan_v1_moe

Family hunyuan_v1_moe_family() {
  using namespace hunyuan_v1_moe;
  return {"hunyuan_v1_moe", "HunYuanMoEV1ForCausalLM", "hunyuan-moe", from_config, from_gguf, weights, add_config, add_gguf};
}

}  // namespace graft
