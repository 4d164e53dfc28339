// qwen2_moe: Qwen1.5-MoE and Qwen2-57B. qwen2 with experts, and a shared expert behind a sigmoid gate; weights need not be normalised.
#include "trainer/models/families/expert_layers.h"
#include "trainer/models/families/llama_like.h"

namespace graft {
namespace qwen2_moe {

void set_biases(DecoderSpec& spec, bool biases) {
  for (auto& layer : spec.layers) layer.attention().input_bias = biases;
}

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "qwen2_moe");
  auto spec = llama_like_spec(reader, "qwen2_moe");
  const bool sliding = reader.bool_or("use_sliding_window", false), biases = reader.bool_or("qkv_bias", true);
  const auto first = static_cast<size_t>(reader.int_or("max_window_layers", 28));
  const int64_t window = reader.int_or("sliding_window", 4096);
  read_windows(reader, spec, sliding ? window : 0, [&](size_t index) { return index >= first; });
  auto experts = read_qwen_experts(reader);
  experts.shared_width = reader.need_int("shared_expert_intermediate_size", 1, kLargestCount);
  experts.shared_gate = true;
  const auto is_dense = read_qwen_dense_layers(reader);
  reader.finish();
  set_experts(spec, experts, is_dense);
  set_biases(spec, biases);
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  auto spec = llama_like_spec(file, "qwen2_moe");
  auto experts = experts_from_gguf(file);
  experts.shared_gate = experts.has_balancing_loss = true;
  set_experts(spec, experts, dense_layers_of(file, spec));
  set_biases(spec, has_tensor(file, "blk.0.attn_q.bias"));
  return spec;
}

WeightMap weights(const DecoderSpec& spec) {
  auto map = weight_map_of(spec, llama_names_with({{"shared.gate", {"mlp.shared_expert.gate_proj", "ffn_gate_shexp"}},
                                                   {"shared.up", {"mlp.shared_expert.up_proj", "ffn_up_shexp"}},
                                                   {"shared.down", {"mlp.shared_expert.down_proj", "ffn_down_shexp"}}}));
  for_part(map, "shared_gate", [&](WeightRule& rule) { rule.gguf_form.whole = {spec.hidden_size}; });   // a vector there
  return map;
}

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  config["qkv_bias"] = spec.layers[0].attention().input_bias;
  config["shared_expert_intermediate_size"] = spec.experts()->shared_width;
  add_qwen_experts(spec, config);
}

void add_gguf(const DecoderSpec& spec, GgufKeys& keys) {
  limit_context_to_window(spec, keys);
  refuse_dense_layers(spec, keys);
  if (spec.tied_head) refuse(keys, "an output matrix beside the embedding");
  refuse_weights(spec, keys, /*normalised=*/true);
  write_experts(spec, keys);
}

}  // namespace qwen2_moe

Family qwen2_moe_family() {
  using namespace qwen2_moe;
  return {"qwen2_moe", "Qwen2MoeForCausalLM", "qwen2moe", from_config, from_gguf, weights, add_config, add_gguf};
}

}  // namespace graft
