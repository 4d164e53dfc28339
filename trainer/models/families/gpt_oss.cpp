// gpt_oss: experts with biases and a clamped SwiGLU, chosen by logits and weighted by the softmax over the chosen; attention with sinks, every second
// layer with a window; YaRN.
#include "checkpoints/mxfp4_tensors.h"
#include "trainer/models/families/expert_layers.h"
#include "trainer/models/families/llama_like.h"

namespace graft {
namespace gpt_oss {

ExpertsSpec experts_with(const RouterSpec& router, int64_t width) {
  ExpertsSpec experts;
  experts.router = router;
  experts.router.score = RouterSpec::Score::kSoftmaxOfChosen;
  experts.router.bias = experts.bias = experts.has_balancing_loss = true;
  experts.width = width;
  experts.activation = ExpertsSpec::Activation::kClampedSwiGlu;
  return experts;
}

void set_attention(DecoderSpec& spec, bool biases) {
  for (auto& layer : spec.layers) {
    layer.attention().input_bias = layer.attention().output_bias = biases;
    layer.attention().sinks = true;
  }
}

// What the class takes where a configuration names no scaling.
nlohmann::ordered_json with_default_rope(nlohmann::ordered_json config) {
  const auto absent = [&](const char* key) { return !config.contains(key) || config[key].is_null(); };
  if (absent("rope_scaling") && absent("rope_parameters")) {
    config["rope_scaling"] = {{"rope_type", "yarn"}, {"factor", 32.0}, {"beta_fast", 32.0}, {"beta_slow", 1.0}, {"truncate", false},
                              {"original_max_position_embeddings", 4096}};
  }
  return config;
}

DecoderSpec from_config(const nlohmann::ordered_json& given) {
  const auto config = with_default_rope(given);
  ConfigReader reader(config, "gpt_oss");
  LlamaDefaults defaults;
  defaults.rope.theta = 150000;
  defaults.head_size = 64;
  auto spec = llama_like_spec(reader, "gpt_oss", defaults);
  const bool biases = reader.bool_or("attention_bias", true);
  read_windows(reader, spec, reader.int_or("sliding_window", 128), [](size_t index) { return index % 2 == 0; });
  auto experts = experts_with(read_router(reader, {"num_local_experts"}), spec.dense_width());
  experts.clamp_limit = reader.float_or("swiglu_limit", 7);
  experts.clamp_alpha = reader.float_or("swiglu_alpha", 1.702);
  if (reader.has("experts_per_token") && reader.int_or("experts_per_token", 0) != experts.router.experts_per_token) {
    reader.wrong("experts_per_token", "what num_experts_per_tok says");
  }
  reader.ignore({"experts_per_token", "initial_context_length"});
  reader.finish();
  set_experts(spec, experts, {});
  set_attention(spec, biases);
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  auto spec = llama_like_spec(file, "gpt_oss");
  const GgufReader reader(file);
  const auto read = experts_from_gguf(file);
  const auto experts = experts_with(read.router, read.width > 0 ? read.width : spec.dense_width());
  for (size_t layer = 0; layer < spec.layers.size(); layer += 2) spec.layers[layer].attention().window = reader.int_or("attention.sliding_window", 128);
  set_experts(spec, experts, {});
  set_attention(spec, has_tensor(file, "blk.0.attn_q.bias"));
  return spec;
}

// The hub holds all experts as one tensor [E, in, out], gate and up in turn.
void set_hub_layout(WeightMap& map, int64_t num_experts) {
  for (auto& rule : map.rules) {
    const auto at = rule.ours.find(".experts.");
    if (at == std::string::npos) continue;
    const auto number = std::stoll(rule.ours.substr(at + 9));
    const bool is_down = rule.ours.find(".down.") != std::string::npos, is_bias = rule.ours.ends_with(".bias");
    auto& form = rule.hub_form;
    form = {};
    form.interleaved = is_down ? 1 : 2;
    form.phase = rule.ours.find(".up.") != std::string::npos ? 1 : 0;
    form.transposed = !is_bias;
    const int64_t out = rule.shape[0] * form.interleaved, in = is_bias ? 1 : rule.shape[1];
    form.whole = is_bias ? std::vector<int64_t>{num_experts, out} : std::vector<int64_t>{num_experts, in, out};
    form.first = number * in * out;
    rule.hub = rule.hub_stacked + (is_bias ? "_bias" : "");
    rule.module = rule.hub_stacked;
    if (is_bias) rule.hub_stacked.clear();
    else rule.hub_stacked += kMxfp4Ending;   // [E, out, in], gate before up
  }
}

WeightMap weights(const DecoderSpec& spec) {
  auto map = weight_map_of(spec, llama_names_with({{"router", {"mlp.router", "ffn_gate_inp"}},
                                                   {"attention.sinks", {"self_attn.sinks", "attn_sinks.weight"}},
                                                   {"channel_norm", {"post_attention_layernorm", "post_attention_norm"}}}));
  set_hub_layout(map, spec.experts()->router.num_experts);
  return map;
}

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  const auto& experts = *spec.experts();
  config["attention_bias"] = spec.layers[0].attention().output_bias;
  config["num_local_experts"] = experts.router.num_experts;
  config["num_experts_per_tok"] = config["experts_per_token"] = experts.router.experts_per_token;
  config["swiglu_limit"] = experts.clamp_limit;
  config["swiglu_alpha"] = experts.clamp_alpha;
  std::vector<std::string> types;
  int64_t window = 0;
  for (const auto& layer : spec.layers) {
    window = std::max(window, layer.attention().window);
    types.push_back(layer.attention().window > 0 ? "sliding_attention" : "full_attention");
  }
  config["sliding_window"] = window;
  config["layer_types"] = types;
}

void add_gguf(const DecoderSpec& spec, GgufKeys& keys) {
  const auto& experts = *spec.experts();
  int64_t window = 0;
  for (size_t layer = 0; layer < spec.layers.size(); ++layer) {
    if ((spec.layers[layer].attention().window > 0) != (layer % 2 == 0)) refuse(keys, "a window in every second layer from the first on");
    window = std::max(window, spec.layers[layer].attention().window);
  }
  if (experts.clamp_limit != 7 || experts.clamp_alpha != 1.702) refuse(keys, "swiglu_limit 7 and swiglu_alpha 1.702");
  if (!spec.layers[0].attention().output_bias) refuse(keys, "biases in attention");
  write_experts(spec, keys);
  write_gating(spec, keys);
  keys.u32("attention.sliding_window", window);
}

}  // namespace gpt_oss

Family gpt_oss_family() {
  using namespace gpt_oss;
  return {"gpt_oss", "GptOssForCausalLM", "gpt-oss", from_config, from_gguf, weights, add_config, add_gguf};
}

}  // namespace graft
