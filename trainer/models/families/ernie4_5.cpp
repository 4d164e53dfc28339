// ernie4_5: ERNIE 4.5 dense. Llama whose neighbouring pairs turn; use_bias puts a bias on every linear layer.
#include "trainer/models/families/llama_like.h"

namespace graft {
namespace ernie4_5 {

void set_layers(DecoderSpec& spec, bool bias) {
  spec.ropes[0].neighbouring_pairs = true;
  for (auto& layer : spec.layers) layer.attention().input_bias = layer.attention().output_bias = layer.mlp().bias = bias;
}

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "ernie4_5");
  LlamaDefaults defaults;
  defaults.rope.theta = 500000;
  defaults.tied_head = true;
  defaults.head_size = 128;
  auto spec = llama_like_spec(reader, "ernie4_5", defaults);
  const bool bias = reader.bool_or("use_bias", false);
  if (reader.float_or("compression_ratio", 1) != 1) reader.wrong("compression_ratio", "1");
  reader.finish();
  set_layers(spec, bias);
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  auto spec = llama_like_spec(file, "ernie4_5");
  set_layers(spec, has_tensor(file, "blk.0.attn_q.bias"));
  return spec;
}

WeightMap weights(const DecoderSpec& spec) { return weight_map_of(spec, llama_names()); }

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) { config["use_bias"] = spec.layers[0].mlp().bias; }

void add_gguf(const DecoderSpec& spec, GgufKeys& keys) { refuse_biases(spec, keys); }

}  // namespace ernie4_5

Family ernie4_5_family() {
  using namespace ernie4_5;
  return {"ernie4_5", "Ernie4_5ForCausalLM", "ernie4_5", from_config, from_gguf, weights, add_config, add_gguf};
}

}  // namespace graft
