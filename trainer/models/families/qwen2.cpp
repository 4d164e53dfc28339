// qwen2: Qwen2, Qwen2.5 and R1 distillations of them. Biases on query, key and value only.
#include "trainer/models/families/llama_like.h"

namespace graft {
namespace qwen2 {

void set_biases(DecoderSpec& spec) {
  for (auto& layer : spec.layers) layer.attention().input_bias = true;
}

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "qwen2");
  auto spec = llama_like_spec(reader, "qwen2");
  const bool sliding = reader.bool_or("use_sliding_window", false);
  const auto first = static_cast<size_t>(reader.int_or("max_window_layers", 28));
  const int64_t window = reader.int_or("sliding_window", 4096);
  read_windows(reader, spec, sliding ? window : 0, [&](size_t index) { return index >= first; });
  reader.expect_false({"use_mrope"});
  reader.finish();
  set_biases(spec);
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  auto spec = llama_like_spec(file, "qwen2");
  set_biases(spec);
  return spec;
}

WeightMap weights(const DecoderSpec& spec) { return weight_map_of(spec, llama_names()); }

}  // namespace qwen2

Family qwen2_family() {
  using namespace qwen2;
  return {"qwen2", "Qwen2ForCausalLM", "qwen2", from_config, from_gguf, weights, nullptr, limit_context_to_window};
}

}  // namespace graft
