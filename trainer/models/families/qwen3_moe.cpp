// qwen3_moe: qwen3 whose layers have experts, weighted by a softmax over all of them; without a shared one.
#include "trainer/models/families/expert_layers.h"
#include "trainer/models/families/llama_like.h"

namespace graft {
namespace qwen3_moe {

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "qwen3_moe");
  auto spec = llama_like_spec(reader, "qwen3_moe");
  const bool sliding = reader.bool_or("use_sliding_window", false), biases = reader.bool_or("attention_bias", false);
  const int64_t window = reader.int_or("sliding_window", 4096);
  for (auto& layer : spec.layers) {
    layer.attention().input_bias = layer.attention().output_bias = biases;
    layer.attention().window = sliding ? window : 0;
  }
  const auto experts = read_qwen_experts(reader);
  const auto is_dense = read_qwen_dense_layers(reader);
  reader.ignore({"max_window_layers"});
  reader.finish();
  set_experts(spec, experts, is_dense);
  set_head_norms(spec);
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  auto spec = llama_like_spec(file, "qwen3_moe");
  auto experts = experts_from_gguf(file);
  experts.router.renormalise = true;
  experts.has_balancing_loss = true;
  set_experts(spec, experts, dense_layers_of(file, spec));
  set_head_norms(spec);
  return spec;
}

WeightMap weights(const DecoderSpec& spec) { return weight_map_of(spec, llama_names()); }

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  config["attention_bias"] = spec.layers[0].attention().output_bias;
  add_qwen_experts(spec, config);
}

void add_gguf(const DecoderSpec& spec, GgufKeys& keys) {
  refuse_biases(spec, keys);
  limit_context_to_window(spec, keys);
  refuse_dense_layers(spec, keys);
  refuse_weights(spec, keys, /*normalised=*/false);
  write_experts(spec, keys);
}

}  // namespace qwen3_moe

Family qwen3_moe_family() {
  using namespace qwen3_moe;
  return {"qwen3_moe", "Qwen3MoeForCausalLM", "qwen3moe", from_config, from_gguf, weights, add_config, add_gguf};
}

}  // namespace graft
