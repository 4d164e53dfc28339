// ministral3: Ministral 3 (text). Mistral with YaRN and queries that grow with the position beyond the original context.
#include "kernels/common/error.h"
#include "trainer/models/families/llama_like.h"

namespace graft {
namespace ministral3 {

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "ministral3");
  LlamaDefaults defaults;
  defaults.head_size = 128;
  auto spec = llama_like_spec(reader, "ministral3", defaults);
  if (!reader.has("rope_parameters")) reader.wrong("rope_parameters", "an object with rope_type yarn");
  const int64_t window = reader.int_or("sliding_window", 0);
  for (auto& layer : spec.layers) layer.attention().window = window;
  reader.finish();
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  auto spec = llama_like_spec(file, "ministral3");
  const GgufReader reader(file);
  auto& rope = spec.ropes[0];
  rope.query_temperature = reader.float_or("attention.temperature_scale", 0);
  rope.attention_factor = 1;   // llama.cpp's graph of mistral3 divides YaRN's own factor out
  return spec;
}

WeightMap weights(const DecoderSpec& spec) {
  auto map = weight_map_of(spec, llama_names());
  set_gguf_rotary_pairs(spec, map);
  return map;
}

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  const auto window = spec.layers[0].attention().window;
  config["sliding_window"] = window > 0 ? nlohmann::ordered_json(window) : nlohmann::ordered_json(nullptr);
  for (const char* key : {"rope_scaling", "rope_parameters"}) config[key]["llama_4_scaling_beta"] = spec.ropes[0].query_temperature;
}

void add_gguf(const DecoderSpec& spec, GgufKeys& keys) {
  const auto& rope = spec.ropes[0];
  if (rope.scaling != RopeSpec::Scaling::kYarn || rope.attention_factor != 1) {
    fail("models", "expected yarn with equal mscale and mscale_all_dim, as llama.cpp computes mistral3, got another scaling — export safetensors or peft");
  }
  keys.erase("rope.scaling.attn_factor");
  keys.f32("rope.scaling.yarn_log_multiplier", 1);
  keys.f32("attention.temperature_scale", rope.query_temperature);
  limit_context_to_window(spec, keys);
}

}  // namespace ministral3

Family ministral3_family() {
  using namespace ministral3;
  return {"ministral3", "Ministral3ForCausalLM", "mistral3", from_config, from_gguf, weights, add_config, add_gguf};
}

}  // namespace graft
