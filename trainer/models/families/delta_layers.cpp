#include "trainer/models/families/delta_layers.h"

#include <algorithm>

#include <fmt/format.h>

#include "kernels/common/error.h"

namespace graft {
namespace {

constexpr int64_t kInterval = 4;      // every fourth layer is full attention
constexpr int64_t kMostHeads = 4096, kLargestHead = 4096, kMostTaps = 64;

void set_gated_attention(DecoderSpec& spec) {
  set_head_norms(spec);
  for (auto& layer : spec.layers) layer.attention().output_gate = true;
}

// Which layers are linear attention: layer_types, or all but the last of each interval.
std::vector<bool> read_linear_layers(ConfigReader& reader, size_t layers) {
  const auto interval = static_cast<size_t>(std::max<int64_t>(1, reader.int_or("full_attention_interval", kInterval)));
  std::vector<bool> linear(layers);
  for (size_t layer = 0; layer < layers; ++layer) linear[layer] = (layer + 1) % interval != 0;
  if (!reader.has("layer_types")) {
    reader.ignore({"layer_types"});
    return linear;
  }
  const auto& types = reader.at("layer_types");
  bool known = types.is_array() && types.size() == layers;
  for (size_t layer = 0; known && layer < layers; ++layer) {
    known = types[layer] == "linear_attention" || types[layer] == "full_attention";
    linear[layer] = types[layer] == "linear_attention";
  }
  if (!known) reader.wrong("layer_types", "linear_attention or full_attention for each layer");
  return linear;
}

bool is_tiled_otherwise(const DecoderSpec& spec) { return spec.family != "qwen3_next"; }   // qwen3next has value heads as the hub has them

// Value heads of a GGUF file of Qwen3.5 stand by their place below a key head; those of the hub by key head.
void reorder_value_heads(const DecoderSpec& spec, WeightMap& map) {
  const auto found = std::find_if(spec.layers.begin(), spec.layers.end(), [](const LayerSpec& layer) { return layer.delta_attention(); });
  if (!is_tiled_otherwise(spec) || found == spec.layers.end()) return;
  const auto& delta = *found->delta_attention();
  const int64_t keys = delta.num_key_heads, each = delta.values_per_key();
  if (each == 1 || keys == 1) return;
  const bool tiled = delta.tiled_value_heads;
  const auto other = [&](WeightRule& rule) -> StoredForm& { return tiled ? rule.hub_form : rule.gguf_form; };
  const auto by_head = [&](WeightRule& rule) {
    auto& form = other(rule);
    form.rows = StoredForm::Rows::kPartsByHead;
    form.heads = tiled ? keys : each;
    form.parts = tiled ? each : keys;
  };
  for (const char* part : {"delta.query_key_value.value", "delta.convolution.value", "delta.gate", "delta.beta", "delta.decay"}) for_part(map, part, by_head);
  for (auto& rule : map.rules) {
    if (rule.ours.ends_with(".delta.decay_rate") || rule.ours.ends_with(".delta.decay_bias")) by_head(rule);
  }
  for_part(map, "delta.output", [&](WeightRule& rule) {
    auto& form = other(rule);
    form.column_heads = tiled ? keys : each;
    form.column_parts = tiled ? each : keys;
  });
}

}  // namespace

LlamaDefaults delta_defaults() {
  LlamaDefaults defaults;
  defaults.head_size = 256;
  defaults.rope.partial_rotary_factor = 0.25;
  return defaults;
}

void read_delta_layers(ConfigReader& reader, DecoderSpec& spec, DeltaAttentionSpec::Form form) {
  DeltaAttentionSpec delta;
  delta.form = form;
  const auto read = [&](const char* key, int64_t otherwise, int64_t largest) { return reader.has(key) ? reader.need_int(key, 1, largest) : otherwise; };
  delta.num_key_heads = read("linear_num_key_heads", 16, kMostHeads);
  delta.num_value_heads = read("linear_num_value_heads", 32, kMostHeads);
  delta.key_size = read("linear_key_head_dim", 128, kLargestHead);
  delta.value_size = read("linear_value_head_dim", 128, kLargestHead);
  delta.taps = read("linear_conv_kernel_dim", 4, kMostTaps);
  reader.ignore({"linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim", "linear_conv_kernel_dim"});
  if (delta.num_value_heads % delta.num_key_heads != 0) {
    reader.wrong("linear_num_value_heads", "a multiple of linear_num_key_heads");
    delta.num_value_heads = delta.num_key_heads;
  }
  delta.norm_epsilon = spec.final_norm.epsilon;
  const bool biases = reader.bool_or("attention_bias", false);
  set_gated_attention(spec);
  reader.expect_false({"use_sliding_window"});
  const auto linear = read_linear_layers(reader, spec.layers.size());
  for (size_t layer = 0; layer < spec.layers.size(); ++layer) {
    auto& attention = spec.layers[layer].attention();
    attention.input_bias = attention.output_bias = biases;
    if (linear[layer]) spec.layers[layer].mixer = delta;
  }
}

ExpertsSpec read_shared_expert(ConfigReader& reader, bool renormalise) {
  auto experts = read_qwen_experts(reader, renormalise);
  experts.shared_width = reader.need_int("shared_expert_intermediate_size", 1, kLargestCount);
  experts.shared_gate = true;
  return experts;
}

DecoderSpec delta_spec_from_gguf(const GgufFile& file, const std::string& family, DeltaAttentionSpec::Form form, bool tiled_value_heads) {
  const GgufReader reader(file);
  auto spec = llama_like_spec(file, family);
  set_gated_attention(spec);
  DeltaAttentionSpec delta;
  delta.form = form;
  delta.num_key_heads = reader.need_int("ssm.group_count", kMostHeads);
  delta.num_value_heads = reader.need_int("ssm.time_step_rank", kMostHeads);
  delta.key_size = delta.value_size = reader.need_int("ssm.state_size", kLargestHead);
  delta.taps = reader.need_int("ssm.conv_kernel", kMostTaps);
  delta.norm_epsilon = spec.final_norm.epsilon;
  if (reader.need_int("ssm.inner_size", kLargestCount) != delta.value_width() || delta.num_value_heads % delta.num_key_heads != 0) {
    fail("models", "expected ssm.inner_size to be ssm.time_step_rank * ssm.state_size, and ssm.time_step_rank a multiple of ssm.group_count, got others ({}) — the file is damaged",
         reader.name());
  }
  delta.tiled_value_heads = tiled_value_heads && delta.num_key_heads != delta.num_value_heads;
  for (size_t layer = 0; layer < spec.layers.size(); ++layer) {
    if (has_tensor(file, fmt::format("blk.{}.ssm_a", layer).c_str())) spec.layers[layer].mixer = delta;
  }
  return spec;
}

WeightMap delta_weights(const DecoderSpec& spec) {
  auto map = weight_map_of(spec, llama_names_with({{"channel_norm", {"post_attention_layernorm", "post_attention_norm"}},
                                                   {"shared.gate", {"mlp.shared_expert.gate_proj", "ffn_gate_shexp"}},
                                                   {"shared.up", {"mlp.shared_expert.up_proj", "ffn_up_shexp"}},
                                                   {"shared.down", {"mlp.shared_expert.down_proj", "ffn_down_shexp"}}}));
  for (const char* part : {"mixer_norm", "channel_norm", "attention.query_norm", "attention.key_norm", "final_norm"}) {
    for_part(map, part, [](WeightRule& rule) { rule.hub_form.offset = -1; });
  }
  const auto heads = spec.attention_layer().heads().num_heads;
  for_part(map, "attention.query", [&](WeightRule& rule) {
    for (auto* form : {&rule.hub_form, &rule.gguf_form}) {
      form->rows = StoredForm::Rows::kPartsByHead;
      form->heads = heads;
      form->parts = 2;
    }
  });
  for_part(map, "shared_gate", [&](WeightRule& rule) { rule.gguf_form.whole = {spec.hidden_size}; });   // a vector there
  reorder_value_heads(spec, map);
  map.skipped.push_back("mtp.*");   // layers that predict further tokens
  const auto further = spec.layers.size();
  for (size_t layer = further; layer < further + 4; ++layer) map.skipped.push_back(fmt::format("blk.{}.*", layer));
  return map;
}

void add_delta_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  auto types = nlohmann::ordered_json::array();
  const DeltaAttentionSpec* delta = nullptr;
  for (const auto& layer : spec.layers) {
    if (layer.delta_attention()) delta = layer.delta_attention();
    types.push_back(layer.delta_attention() ? "linear_attention" : "full_attention");
  }
  config["layer_types"] = types;
  const auto* attention = std::get_if<AttentionSpec>(&spec.attention_layer().mixer);
  config["attention_bias"] = attention && attention->input_bias;
  if (!delta) return;
  config["linear_num_key_heads"] = delta->num_key_heads;
  config["linear_num_value_heads"] = delta->num_value_heads;
  config["linear_key_head_dim"] = delta->key_size;
  config["linear_value_head_dim"] = delta->value_size;
  config["linear_conv_kernel_dim"] = delta->taps;
}

void add_delta_gguf(const DecoderSpec& spec, GgufKeys& keys) {
  // llama.cpp: linear attention in all layers but the last of each interval.
  size_t interval = 0;
  while (interval < spec.layers.size() && spec.layers[interval].delta_attention()) ++interval;
  ++interval;
  const DeltaAttentionSpec* delta = nullptr;
  for (size_t layer = 0; layer < spec.layers.size(); ++layer) {
    const auto* linear = spec.layers[layer].delta_attention();
    if (linear) delta = linear;
    if ((linear != nullptr) != ((layer + 1) % interval != 0)) refuse(keys, "linear attention in all layers but the last of each interval");
    if (!linear && spec.layers[layer].attention().input_bias) refuse(keys, "no biases in attention");
  }
  if (!delta) refuse(keys, "a layer of linear attention");
  // Its one epsilon is that of queries' and keys' norms too (here 1e-6).
  if (spec.final_norm.epsilon > 1e-5) refuse(keys, "rms_norm_eps of at most 1e-5");
  if (delta->key_size != delta->value_size) refuse(keys, "keys and values of linear attention of one size");
  if (spec.layers.size() < interval) refuse(keys, "a layer of full attention");
  keys.u32("ssm.conv_kernel", delta->taps);
  keys.u32("ssm.state_size", delta->key_size);
  keys.u32("ssm.group_count", delta->num_key_heads);
  keys.u32("ssm.time_step_rank", delta->num_value_heads);
  keys.u32("ssm.inner_size", delta->value_width());
  keys.u32("full_attention_interval", static_cast<int64_t>(interval));
}

}  // namespace graft
