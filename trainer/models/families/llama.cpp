// llama: Llama 2 and 3, SmolLM2 and what shares their layout. Biases on all four attention projections by attention_bias.
#include "kernels/common/error.h"
#include "trainer/models/families/llama_like.h"

namespace graft {
namespace llama {

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "llama");
  auto spec = llama_like_spec(reader, "llama");
  const bool attention_bias = reader.bool_or("attention_bias", false), mlp_bias = reader.bool_or("mlp_bias", false);
  for (auto& layer : spec.layers) {
    layer.attention().input_bias = layer.attention().output_bias = attention_bias;
    layer.mlp().bias = mlp_bias;
  }
  reader.finish();
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  if (file.get_int("llama.expert_count").value_or(0) > 0) {
    fail("models", "expected a dense llama, got llama.expert_count above 0: and no blk.0.ffn_gate_inp.weight: experts that are stored one by one are not supported, convert the model again ({})", file.path().filename().string());
  }
  auto spec = llama_like_spec(file, "llama");
  for (auto& layer : spec.layers) {
    layer.attention().input_bias = has_tensor(file, "blk.0.attn_q.bias");
    layer.attention().output_bias = has_tensor(file, "blk.0.attn_output.bias");
    layer.mlp().bias = has_tensor(file, "blk.0.ffn_gate.bias");
  }
  return spec;
}

WeightMap weights(const DecoderSpec& spec) {
  auto map = weight_map_of(spec, llama_names());
  set_gguf_rotary_pairs(spec, map);
  return map;
}

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  config["attention_bias"] = spec.layers[0].attention().output_bias;
  config["mlp_bias"] = spec.layers[0].mlp().bias;
}

}  // namespace llama

Family llama_family() {
  using namespace llama;
  return {"llama", "LlamaForCausalLM", "llama", from_config, from_gguf, weights, add_config};
}

}  // namespace graft
