// gemma3_text: Gemma 3 270M and 1B. Norms of query and key heads; five sliding layers, one full one; sliding layers have a rotary table of their own.
#include <algorithm>
#include <cmath>

#include "trainer/models/families/gemma.h"

namespace graft {
namespace gemma3_text {

constexpr int64_t kPeriod = 6;
constexpr double kLocalTheta = 10000;

// ropes[0] turns full layers, ropes[1] sliding ones.
void set_layers(DecoderSpec& spec) {
  for (auto& layer : spec.layers) {
    layer.attention().head_norm = layer.mixer_norm;
    layer.attention().rope = layer.attention().window > 0 ? 1 : 0;
  }
  set_gemma_layers(spec);
}

void read_ropes(ConfigReader& reader, DecoderSpec& spec, int64_t head_size) {
  const double local_theta = reader.float_or("rope_local_base_freq", kLocalTheta);
  RopeDefaults global, local;
  global.theta = 1000000;
  local.theta = local_theta;
  if (reader.has("rope_parameters") && reader.at("rope_parameters").contains("full_attention")) {
    global.theta = reader.float_or("rope_theta", global.theta);
    reader.ignore({"rope_scaling"});
    const auto values = reader.at("rope_parameters");
    const auto of = [&](const char* type) { return values.contains(type) && values[type].is_object() ? values[type] : nlohmann::ordered_json::object(); };
    for (const auto& [name, value] : values.items()) {
      if (name != "full_attention" && name != "sliding_attention") reader.wrong("rope_parameters", "full_attention and sliding_attention only");
    }
    spec.ropes = {read_rope_values(reader, "rope_parameters", of("full_attention"), head_size, spec.max_positions, global),
                  read_rope_values(reader, "rope_parameters", of("sliding_attention"), head_size, spec.max_positions, local)};
    return;
  }
  spec.ropes = {read_rope(reader, head_size, spec.max_positions, global),
                read_rope_values(reader, "rope_local_base_freq", nlohmann::ordered_json::object(), head_size, spec.max_positions, local)};
}

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "gemma3_text");
  auto defaults = gemma_defaults();
  defaults.own_ropes = true;
  auto spec = llama_like_spec(reader, "gemma3_text", defaults);
  read_ropes(reader, spec, spec.layers[0].attention().head_size);
  const bool biases = reader.bool_or("attention_bias", false);
  const double scale = 1 / std::sqrt(reader.float_or("query_pre_attn_scalar", 256));
  spec.logit_softcap = reader.float_or("final_logit_softcapping", 0);
  if (reader.float_or("attn_logit_softcapping", 0) != 0) reader.wrong("attn_logit_softcapping", "null");
  for (auto& layer : spec.layers) {
    layer.attention().input_bias = layer.attention().output_bias = biases;
    layer.attention().scale = scale;
  }
  int64_t period = reader.int_or("sliding_window_pattern", kPeriod);
  period = reader.int_or("_sliding_window_pattern", period);
  if (period < 1) period = 1;
  const int64_t window = reader.contains("sliding_window") ? reader.int_or("sliding_window", 0) : 4096;
  read_windows(reader, spec, window, [&](size_t index) { return static_cast<int64_t>(index + 1) % period != 0; });
  reader.expect_false({"use_bidirectional_attention"});
  reader.ignore({"cache_implementation"});
  reader.finish();
  set_layers(spec);
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  auto spec = llama_like_spec(file, "gemma3_text");
  const GgufReader reader(file);
  const int64_t window = reader.int_or("attention.sliding_window", 0), period = std::max<int64_t>(1, reader.int_or("attention.sliding_window_pattern", kPeriod));
  RopeSpec local;
  local.rotary_size = spec.ropes[0].rotary_size;
  local.theta = reader.float_or("rope.freq_base_swa", kLocalTheta);
  spec.ropes.push_back(local);
  spec.logit_softcap = reader.float_or("final_logit_softcapping", 0);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    if (static_cast<int64_t>(i) % period < period - 1) spec.layers[i].attention().window = window;
  }
  set_layers(spec);
  return spec;
}

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  add_gemma_config(spec, config);
  const auto head_size = spec.layers[0].attention().head_size;
  config["rope_local_base_freq"] = spec.ropes[1].theta;
  config["rope_parameters"] = {{"full_attention", rope_parameters(spec.ropes[0], head_size)}, {"sliding_attention", rope_parameters(spec.ropes[1], head_size)}};
}

void add_gguf(const DecoderSpec& spec, GgufKeys& keys) {
  add_gemma_gguf(spec, keys, kPeriod);
  keys.f32("rope.freq_base_swa", spec.ropes[1].theta);
}

}  // namespace gemma3_text

Family gemma3_text_family() {
  using namespace gemma3_text;
  return {"gemma3_text", "Gemma3ForCausalLM", "gemma3", from_config, from_gguf, gemma_weights, add_config, add_gguf};
}

}  // namespace graft
