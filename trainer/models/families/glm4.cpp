// glm4: GLM-4-0414 and GLM-Z1. glm with a norm before and after both halves of a layer.
#include "trainer/models/families/llama_like.h"

namespace graft {
namespace glm4 {

void set_layers(DecoderSpec& spec, bool bias) {
  spec.ropes[0].neighbouring_pairs = true;
  for (auto& layer : spec.layers) {
    layer.attention().input_bias = bias;
    layer.mlp().fused = true;
    layer.mixer_post_norm = layer.mixer_norm;
    layer.channel_post_norm = layer.channel_norm;
  }
}

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "glm4");
  LlamaDefaults defaults;
  defaults.rope.partial_rotary_factor = 0.5;
  defaults.head_size = 128;
  auto spec = llama_like_spec(reader, "glm4", defaults);
  const bool bias = reader.bool_or("attention_bias", true);
  reader.finish();
  set_layers(spec, bias);
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  auto spec = llama_like_spec(file, "glm4");
  set_layers(spec, has_tensor(file, "blk.0.attn_q.bias"));
  return spec;
}

WeightMap weights(const DecoderSpec& spec) {
  return weight_map_of(spec, llama_names_with({{"mixer_post_norm", {"post_self_attn_layernorm", "post_attention_norm"}},
                                               {"channel_post_norm", {"post_mlp_layernorm", "post_ffw_norm"}}}));
}

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) { config["attention_bias"] = spec.layers[0].attention().input_bias; }

}  // namespace glm4

Family glm4_family() {
  using namespace glm4;
  return {"glm4", "Glm4ForCausalLM", "glm4", from_config, from_gguf, weights, add_config};
}

}  // namespace graft
