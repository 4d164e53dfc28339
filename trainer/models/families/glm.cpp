// glm: GLM-4-9B in transformers' own layout. Biases on query, key and value; neighbouring pairs of half of each head turn; gate and up are one matrix.
#include "trainer/models/families/llama_like.h"

namespace graft {
namespace glm {

void set_layers(DecoderSpec& spec, bool bias) {
  spec.ropes[0].neighbouring_pairs = true;
  for (auto& layer : spec.layers) {
    layer.attention().input_bias = bias;
    layer.mlp().fused = true;
  }
}

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "glm");
  LlamaDefaults defaults;
  defaults.rope.partial_rotary_factor = 0.5;
  defaults.head_size = 128;
  auto spec = llama_like_spec(reader, "glm", defaults);
  const bool bias = reader.bool_or("attention_bias", true);
  reader.finish();
  set_layers(spec, bias);
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  auto spec = llama_like_spec(file, "glm");
  set_layers(spec, has_tensor(file, "blk.0.attn_q.bias"));
  return spec;
}

WeightMap weights(const DecoderSpec& spec) { return weight_map_of(spec, llama_names()); }

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) { config["attention_bias"] = spec.layers[0].attention().input_bias; }

}  // namespace glm

Family glm_family() {
  using namespace glm;
  return {"glm", "GlmForCausalLM", "chatglm", from_config, from_gguf, weights, add_config};
}

}  // namespace graft
