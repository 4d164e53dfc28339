// A spec written back as the configuration of an exported model.
#include "kernels/common/error.h"
#include "trainer/models/families/family.h"

namespace graft {

using nlohmann::ordered_json;

ordered_json config_from_spec(const DecoderSpec& spec) {
  const auto& layer = spec.layers.at(0);
  const auto& rope = spec.ropes.at(0);
  ordered_json config;
  config["architectures"] = {family_of_model_type(spec.family).architecture};
  config["model_type"] = spec.family;
  config["vocab_size"] = spec.vocab_size;
  config["hidden_size"] = spec.hidden_size;
  config["intermediate_size"] = layer.mlp.width;
  config["num_hidden_layers"] = spec.layers.size();
  config["num_attention_heads"] = layer.attention.num_heads;
  config["num_key_value_heads"] = layer.attention.num_kv_heads;
  config["head_dim"] = layer.attention.head_size;
  config["hidden_act"] = "silu";
  config["max_position_embeddings"] = spec.max_positions;
  config["rms_norm_eps"] = spec.final_norm.epsilon;
  config["tie_word_embeddings"] = spec.tied_head;
  if (spec.family != "qwen2") config["attention_bias"] = layer.attention.output_bias;
  if (spec.family == "llama") config["mlp_bias"] = layer.mlp.bias;
  // Old readers (mistralrs, transformers 4) want rope_theta and rope_scaling, transformers 5 rope_parameters: both are written.
  ordered_json parameters = {{"rope_theta", rope.theta}, {"rope_type", "default"}};
  if (rope.scaling == RopeSpec::Scaling::kLinear) {
    parameters["rope_type"] = "linear";
    parameters["factor"] = rope.factor;
  } else if (rope.scaling == RopeSpec::Scaling::kLlama3) {
    parameters["rope_type"] = "llama3";
    parameters["factor"] = rope.factor;
    parameters["low_freq_factor"] = rope.low_frequency_factor;
    parameters["high_freq_factor"] = rope.high_frequency_factor;
    parameters["original_max_position_embeddings"] = static_cast<int64_t>(rope.original_max_positions);
  }
  config["rope_theta"] = rope.theta;
  if (rope.scaling != RopeSpec::Scaling::kNone) {
    auto scaling = parameters;
    scaling.erase("rope_theta");
    config["rope_scaling"] = scaling;
  }
  config["rope_parameters"] = parameters;
  return config;
}

std::vector<GgufEntry> gguf_hyperparameters(const DecoderSpec& spec) {
  const auto arch = family_of_model_type(spec.family).gguf_architecture;
  const auto& layer = spec.layers.at(0);
  const auto& rope = spec.ropes.at(0);
  std::vector<GgufEntry> entries;
  const auto add_u32 = [&](const std::string& key, int64_t value) {
    entries.push_back({arch + "." + key, GgufType::kU32, GgufType::kString, static_cast<uint64_t>(value)});
  };
  const auto add_f32 = [&](const std::string& key, double value) {
    entries.push_back({arch + "." + key, GgufType::kF32, GgufType::kString, value});
  };
  add_u32("block_count", static_cast<int64_t>(spec.layers.size()));
  add_u32("context_length", spec.max_positions);
  add_u32("embedding_length", spec.hidden_size);
  add_u32("feed_forward_length", layer.mlp.width);
  add_u32("attention.head_count", layer.attention.num_heads);
  add_u32("attention.head_count_kv", layer.attention.num_kv_heads);
  add_f32("attention.layer_norm_rms_epsilon", spec.final_norm.epsilon);
  add_u32("attention.key_length", layer.attention.head_size);
  add_u32("attention.value_length", layer.attention.head_size);
  add_f32("rope.freq_base", rope.theta);
  add_u32("rope.dimension_count", rope.rotary_size);
  add_u32("vocab_size", spec.vocab_size);
  if (rope.scaling == RopeSpec::Scaling::kLinear) {
    entries.push_back({arch + ".rope.scaling.type", GgufType::kString, GgufType::kString, std::string("linear")});
    add_f32("rope.scaling.factor", rope.factor);
  }
  // llama3 scaling is written as the tensor rope_freqs.weight by the GGUF export.
  return entries;
}

}  // namespace graft
