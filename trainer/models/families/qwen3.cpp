// qwen3: RMS norm of each query and key head before the rotation; head_dim is its own number.
#include "trainer/models/families/qwen3.h"

#include "trainer/models/families/llama_like.h"

namespace graft {
namespace {

DecoderSpec with_head_norms(DecoderSpec spec) {
  for (auto& layer : spec.layers) layer.attention.head_norm = layer.mixer_norm;
  return spec;
}

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "qwen3");
  auto spec = llama_like_spec(reader, "qwen3");
  if (reader.bool_or("use_sliding_window", false)) reader.wrong("use_sliding_window", "false");
  const bool biases = reader.bool_or("attention_bias", false);
  reader.ignore({"sliding_window", "max_window_layers", "layer_types"});
  reader.finish();
  for (auto& layer : spec.layers) layer.attention.input_bias = layer.attention.output_bias = biases;
  return with_head_norms(std::move(spec));
}

DecoderSpec from_gguf(const GgufFile& file) { return with_head_norms(llama_like_spec(file, "qwen3")); }

WeightMap weights(const DecoderSpec& spec) { return llama_like_weight_map(spec, /*gguf_interleaved=*/false); }

}  // namespace

Family qwen3_family() { return {"qwen3", "Qwen3ForCausalLM", "qwen3", from_config, from_gguf, weights}; }

}  // namespace graft
