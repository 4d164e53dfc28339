// PanguEmbedded: openPangu-Embedded 1B and 7B. Llama with biases on all four attention projections ("bias").
#include "kernels/common/error.h"
#include "trainer/models/families/llama_like.h"

namespace graft {
namespace pangu_embedded {

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "PanguEmbedded");
  auto spec = llama_like_spec(reader, "PanguEmbedded");
  const bool bias = reader.bool_or("bias", true);
  for (auto& layer : spec.layers) layer.attention().input_bias = layer.attention().output_bias = bias;
  reader.finish();
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  auto spec = llama_like_spec(file, "PanguEmbedded");
  for (auto& layer : spec.layers) {
    layer.attention().input_bias = has_tensor(file, "blk.0.attn_q.bias");
    layer.attention().output_bias = has_tensor(file, "blk.0.attn_output.bias");
  }
  return spec;
}

WeightMap weights(const DecoderSpec& spec) { return weight_map_of(spec, llama_names()); }

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) { config["bias"] = spec.layers[0].attention().output_bias; }

void add_gguf(const DecoderSpec& spec, GgufKeys&) {
  if (!spec.layers[0].attention().output_bias) {
    fail("models", "expected biases, as llama.cpp computes pangu-embedded, got a model without — export safetensors or peft");
  }
}

}  // namespace pangu_embedded

Family pangu_embedded_family() {
  using namespace pangu_embedded;
  return {"PanguEmbedded", "PanguEmbeddedForCausalLM", "pangu-embedded", from_config, from_gguf, weights, add_config, add_gguf};
}

}  // namespace graft
