// smollm3: Llama whose every fourth layer does not rotate queries and keys (no_rope_layers: 1 = rotates).
#include "kernels/common/error.h"
#include "trainer/models/families/llama_like.h"

namespace graft {
namespace smollm3 {

constexpr int64_t kInterval = 4;   // llama.cpp knows no other

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "smollm3");
  LlamaDefaults defaults;
  defaults.rope.theta = 2000000;
  defaults.tied_head = true;
  auto spec = llama_like_spec(reader, "smollm3", defaults);
  const bool attention_bias = reader.bool_or("attention_bias", false), mlp_bias = reader.bool_or("mlp_bias", false);
  const int64_t interval = reader.int_or("no_rope_layer_interval", kInterval);
  std::vector<int64_t> rotates;
  if (reader.has("no_rope_layers")) {
    for (const auto& value : reader.at("no_rope_layers")) rotates.push_back(value.is_number_integer() ? value.get<int64_t>() : -1);
    if (rotates.size() != spec.layers.size()) reader.wrong("no_rope_layers", "a number for each layer");
  }
  reader.ignore({"no_rope_layers", "max_window_layers"});
  rotates.resize(spec.layers.size(), -1);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    auto& layer = spec.layers[i];
    layer.attention().input_bias = layer.attention().output_bias = attention_bias;
    layer.mlp().bias = mlp_bias;
    const bool by_interval = interval == 0 || static_cast<int64_t>(i + 1) % interval != 0;
    if (rotates[i] < 0 ? !by_interval : rotates[i] == 0) layer.attention().rope.reset();
  }
  const bool sliding = reader.bool_or("use_sliding_window", false);
  const int64_t window = reader.int_or("sliding_window", 0);
  read_windows(reader, spec, sliding ? window : 0, [&](size_t index) { return !spec.layers[index].attention().rope; });
  reader.finish();
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  auto spec = llama_like_spec(file, "smollm3");
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    auto& layer = spec.layers[i];
    layer.attention().input_bias = has_tensor(file, "blk.0.attn_q.bias");
    layer.attention().output_bias = has_tensor(file, "blk.0.attn_output.bias");
    layer.mlp().bias = has_tensor(file, "blk.0.ffn_gate.bias");
    if (static_cast<int64_t>(i + 1) % kInterval == 0) layer.attention().rope.reset();
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
  for (const auto& layer : spec.layers) config["no_rope_layers"].push_back(layer.attention().rope ? 1 : 0);
}

void add_gguf(const DecoderSpec& spec, GgufKeys& keys) {
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    if (spec.layers[i].attention().rope.has_value() != (static_cast<int64_t>(i + 1) % kInterval != 0)) {
      fail("models", "expected every {}th layer and no other without rotation, as llama.cpp computes smollm3, got another pattern — export safetensors or peft", kInterval);
    }
  }
  refuse_biases(spec, keys);
  limit_context_to_window(spec, keys);
}

}  // namespace smollm3

Family smollm3_family() {
  using namespace smollm3;
  return {"smollm3", "SmolLM3ForCausalLM", "smollm3", from_config, from_gguf, weights, add_config, add_gguf};
}

}  // namespace graft
