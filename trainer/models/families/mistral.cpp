// mistral: Mistral 7B to Nemo and Small. Llama with a sliding window in all layers: a missing key means 4096, null none.
#include "trainer/models/families/llama_like.h"

namespace graft {
namespace mistral {

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "mistral");
  auto spec = llama_like_spec(reader, "mistral");
  const int64_t window = reader.contains("sliding_window") ? reader.int_or("sliding_window", 0) : 4096;
  for (auto& layer : spec.layers) layer.attention().window = window;
  reader.finish();
  return spec;
}

// A GGUF file of a Mistral says llama, and is read as one.
DecoderSpec from_gguf(const GgufFile& file) { return llama_like_spec(file, "mistral"); }

WeightMap weights(const DecoderSpec& spec) {
  auto map = weight_map_of(spec, llama_names());
  set_gguf_rotary_pairs(spec, map);
  return map;
}

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  const auto window = spec.layers[0].attention().window;
  config["sliding_window"] = window > 0 ? nlohmann::ordered_json(window) : nlohmann::ordered_json(nullptr);
}

}  // namespace mistral

Family mistral_family() {
  using namespace mistral;
  return {"mistral", "MistralForCausalLM", "llama", from_config, from_gguf, weights, add_config, limit_context_to_window};
}

}  // namespace graft
