// qwen3: RMS norm of each query and key head before the rotation; head_dim is its own number.
#include "trainer/models/families/llama_like.h"

namespace graft {
namespace qwen3 {

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "qwen3");
  auto spec = llama_like_spec(reader, "qwen3");
  const bool sliding = reader.bool_or("use_sliding_window", false), biases = reader.bool_or("attention_bias", false);
  const auto first = static_cast<size_t>(reader.int_or("max_window_layers", 28));
  const int64_t window = reader.int_or("sliding_window", 4096);
  read_windows(reader, spec, sliding ? window : 0, [&](size_t index) { return index >= first; });
  reader.finish();
  for (auto& layer : spec.layers) layer.attention().input_bias = layer.attention().output_bias = biases;
  set_head_norms(spec);
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  auto spec = llama_like_spec(file, "qwen3");
  set_head_norms(spec);
  return spec;
}

WeightMap weights(const DecoderSpec& spec) { return weight_map_of(spec, llama_names()); }

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) { config["attention_bias"] = spec.layers[0].attention().output_bias; }

void add_gguf(const DecoderSpec& spec, GgufKeys& keys) {
  refuse_biases(spec, keys);
  limit_context_to_window(spec, keys);
}

}  // namespace qwen3

Family qwen3_family() {
  using namespace qwen3;
  return {"qwen3", "Qwen3ForCausalLM", "qwen3", from_config, from_gguf, weights, add_config, add_gguf};
}

}  // namespace graft
