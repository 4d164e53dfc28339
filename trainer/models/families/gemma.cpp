#include "trainer/models/families/gemma.h"

#include <algorithm>
#include <cmath>

#include "kernels/common/error.h"

namespace graft {

LlamaDefaults gemma_defaults() {
  LlamaDefaults defaults;
  defaults.tied_head = true;
  defaults.head_size = 256;
  defaults.activation = MlpSpec::Activation::kGeluTanh;
  return defaults;
}

void set_gemma_layers(DecoderSpec& spec) {
  spec.embedding.scale = static_cast<float>(std::sqrt(static_cast<double>(spec.hidden_size)));
  for (auto& layer : spec.layers) {
    layer.mixer_post_norm = layer.mixer_norm;
    layer.channel_post_norm = layer.channel_norm;
    layer.mlp().activation = MlpSpec::Activation::kGeluTanh;
  }
}

WeightMap gemma_weights(const DecoderSpec& spec) {
  auto map = weight_map_of(spec, llama_names_with({{"mixer_post_norm", {"post_attention_layernorm", "post_attention_norm"}},
                                                   {"channel_norm", {"pre_feedforward_layernorm", "ffn_norm"}},
                                                   {"channel_post_norm", {"post_feedforward_layernorm", "post_ffw_norm"}}}));
  for (const char* part : {"mixer_norm", "mixer_post_norm", "channel_norm", "channel_post_norm", "attention.query_norm", "attention.key_norm", "final_norm"}) {
    for_part(map, part, [](WeightRule& rule) { rule.hub_form.offset = -1; });
  }
  return map;
}

void add_gemma_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  const auto& attention = spec.layers[0].attention();
  config.erase("hidden_act");
  config["hidden_activation"] = "gelu_pytorch_tanh";
  config["attention_bias"] = attention.output_bias;
  config["query_pre_attn_scalar"] = 1 / (attention.scale * attention.scale);
  if (const auto scalar = std::llround(1 / (attention.scale * attention.scale)); std::abs(1 / std::sqrt(static_cast<double>(scalar)) - attention.scale) < 1e-6) {
    config["query_pre_attn_scalar"] = scalar;
  }
  const auto softcap = [](double value) { return value > 0 ? nlohmann::ordered_json(value) : nlohmann::ordered_json(nullptr); };
  config["final_logit_softcapping"] = softcap(spec.logit_softcap);
  config["attn_logit_softcapping"] = softcap(attention.softcap);
  int64_t window = 0;
  for (const auto& layer : spec.layers) {
    window = std::max(window, layer.attention().window);
    config["layer_types"].push_back(layer.attention().window > 0 ? "sliding_attention" : "full_attention");
  }
  if (window > 0) config["sliding_window"] = window;
}

int64_t window_period(const DecoderSpec& spec) {
  const auto slides = [&](size_t index) { return spec.layers[index].attention().window > 0; };
  size_t period = 0;
  while (period < spec.layers.size() && slides(period)) ++period;
  ++period;   // the first layer that does not slide ends the first period
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    if (slides(i) != (i % period < period - 1)) {
      fail("models", "expected sliding layers in a period that ends with a full one, as llama.cpp computes them, got another order — export safetensors or peft");
    }
  }
  return static_cast<int64_t>(period);
}

void add_gemma_gguf(const DecoderSpec& spec, GgufKeys& keys, int64_t default_period) {
  const auto& attention = spec.layers[0].attention();
  refuse_biases(spec, keys);
  if (!spec.tied_head) fail("models", "expected a head tied to the embedding, as llama.cpp computes {}, got a head of its own — export safetensors or peft", keys.architecture());
  if (std::abs(attention.scale * std::sqrt(static_cast<double>(attention.head_size)) - 1) > 1e-6) {
    fail("models", "expected query_pre_attn_scalar to be the head size ({}), as llama.cpp computes {}, got {:g} — export safetensors or peft", attention.head_size,
         keys.architecture(), 1 / (attention.scale * attention.scale));
  }
  if (attention.softcap > 0) keys.f32("attn_logit_softcapping", attention.softcap);
  if (spec.logit_softcap > 0) keys.f32("final_logit_softcapping", spec.logit_softcap);
  const int64_t period = window_period(spec);
  // llama.cpp knows no model without sliding layers: a window of all positions is none.
  keys.u32("attention.sliding_window", period > 1 ? attention.window : spec.max_positions);
  if (period > 1 && period != default_period) keys.u32("attention.sliding_window_pattern", period);
}

}  // namespace graft
