// qwen2: Qwen2, Qwen2.5 and R1 distillations of them. Biases on query, key and value only.
#include "trainer/models/families/qwen2.h"

#include "trainer/models/families/llama_like.h"

namespace graft {
namespace {

DecoderSpec with_biases(DecoderSpec spec) {
  for (auto& layer : spec.layers) layer.attention.input_bias = true;
  return spec;
}

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "qwen2");
  auto spec = llama_like_spec(reader, "qwen2");
  if (reader.bool_or("use_sliding_window", false)) reader.wrong("use_sliding_window", "false");
  reader.ignore({"sliding_window", "max_window_layers", "layer_types", "use_mrope"});
  reader.finish();
  return with_biases(std::move(spec));
}

DecoderSpec from_gguf(const GgufFile& file) { return with_biases(llama_like_spec(file, "qwen2")); }

WeightMap weights(const DecoderSpec& spec) { return llama_like_weight_map(spec, /*gguf_interleaved=*/false); }

}  // namespace

Family qwen2_family() { return {"qwen2", "Qwen2ForCausalLM", "qwen2", from_config, from_gguf, weights}; }

}  // namespace graft
