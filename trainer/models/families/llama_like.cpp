#include "trainer/models/families/llama_like.h"

#include <algorithm>
#include <cmath>

#include "kernels/common/error.h"

namespace graft {

using nlohmann::ordered_json;

namespace {

void expect_activation(ConfigReader& reader, MlpSpec::Activation activation) {
  const bool silu = activation == MlpSpec::Activation::kSilu;
  for (const char* key : {"hidden_act", "hidden_activation"}) {
    const auto name = reader.string_or(key, silu ? "silu" : "gelu_pytorch_tanh");
    const bool known = silu ? name == "silu" : name == "gelu_pytorch_tanh" || name == "gelu_new";
    if (!known) reader.wrong(key, silu ? "silu" : "gelu_pytorch_tanh");
  }
}

}  // namespace

DecoderSpec llama_like_spec(ConfigReader& reader, const std::string& family, const LlamaDefaults& defaults) {
  DecoderSpec spec;
  spec.family = family;
  spec.vocab_size = reader.need_int("vocab_size");
  spec.hidden_size = reader.need_int("hidden_size", 1, kLargestCount);
  spec.max_positions = reader.need_int("max_position_embeddings");
  spec.tied_head = reader.bool_or("tie_word_embeddings", defaults.tied_head);
  expect_activation(reader, defaults.activation);
  LayerSpec layer;
  const NormSpec norm{reader.need_float("rms_norm_eps")};
  layer.mixer_norm = layer.channel_norm = spec.final_norm = norm;
  auto& attention = layer.attention();
  attention.num_heads = reader.need_int("num_attention_heads", 1, kLargestCount);
  attention.num_kv_heads = reader.int_or("num_key_value_heads", attention.num_heads);
  attention.head_size = reader.int_or("head_dim", defaults.head_size > 0 ? defaults.head_size : spec.hidden_size / attention.num_heads);
  const bool needs_width = defaults.dense_width == 0 || reader.has("intermediate_size");
  layer.mlp().width = needs_width ? reader.need_int("intermediate_size", 1, kLargestCount * 4) : defaults.dense_width;
  layer.mlp().activation = defaults.activation;
  const int64_t num_layers = reader.need_int("num_hidden_layers", 1, 4096);
  if (attention.num_kv_heads < 1) {
    reader.wrong("num_key_value_heads", "at least 1");
    attention.num_kv_heads = 1;
  }
  if (attention.head_size < 2 || attention.head_size > 4096) {
    if (reader.has("head_dim")) reader.wrong("head_dim", "from 2 to 4096");
    attention.head_size = 2;
  }
  attention.scale = 1 / std::sqrt(static_cast<double>(attention.head_size));
  if (!defaults.own_ropes) spec.ropes = {read_rope(reader, attention.head_size, spec.max_positions, defaults.rope)};
  spec.layers.assign(static_cast<size_t>(num_layers), layer);
  return spec;
}

DecoderSpec headless_spec(const GgufFile& file, const std::string& family) {
  const GgufReader reader(file);
  DecoderSpec spec;
  spec.family = family;
  spec.hidden_size = reader.need_int("embedding_length", kLargestCount);
  spec.max_positions = reader.need_int("context_length", int64_t{1} << 31);
  const auto* embedding = file.find("token_embd.weight");
  if (!embedding || embedding->shape.size() != 2) {
    fail("models", "expected a tensor token_embd.weight with two dimensions, got {} ({})", embedding ? "another shape" : "none", reader.name());
  }
  spec.vocab_size = embedding->shape[0];
  spec.tied_head = file.find("output.weight") == nullptr;
  LayerSpec layer;
  const bool layer_norm = file.get_float(file.need_string("general.architecture") + ".attention.layer_norm_epsilon").has_value();
  const NormSpec norm{reader.need_float(layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon"),
                      layer_norm ? NormSpec::Kind::kLayer : NormSpec::Kind::kRms};
  layer.mixer_norm = layer.channel_norm = spec.final_norm = norm;
  layer.mlp().width = reader.need_int("feed_forward_length", kLargestCount * 4);
  // llama.cpp's converters count layers that predict further tokens among the others: they are skipped.
  const auto blocks = reader.need_int("block_count", 4096), further = reader.int_or("nextn_predict_layers", 0);
  if (further < 0 || further >= blocks) {
    fail("models", "expected nextn_predict_layers below block_count {}, got {} ({}) — the file is damaged", blocks, further, reader.name());
  }
  spec.layers.assign(static_cast<size_t>(blocks - further), layer);
  return spec;
}

DecoderSpec llama_like_spec(const GgufFile& file, const std::string& family) {
  const GgufReader reader(file);
  auto spec = headless_spec(file, family);
  AttentionSpec attention;
  attention.num_heads = reader.need_int("attention.head_count", kLargestCount);
  attention.num_kv_heads = reader.int_or("attention.head_count_kv", attention.num_heads);
  attention.head_size = reader.int_or("attention.key_length", spec.hidden_size / attention.num_heads);
  if (attention.num_kv_heads < 1 || attention.head_size < 2 || attention.head_size > 4096 ||
      reader.int_or("attention.value_length", attention.head_size) != attention.head_size) {
    fail("models", "expected at least one key-value head and equal key and value lengths from 2 to 4096, got others ({})", reader.name());
  }
  attention.scale = 1 / std::sqrt(static_cast<double>(attention.head_size));
  for (auto& layer : spec.layers) layer.attention() = attention;
  spec.ropes = {read_rope(file, attention.head_size, spec.max_positions)};
  return spec;
}

void read_windows(ConfigReader& reader, DecoderSpec& spec, int64_t window, const std::function<bool(size_t)>& is_sliding) {
  std::vector<std::string> types;
  if (reader.has("layer_types")) {
    for (const auto& type : reader.at("layer_types")) types.push_back(type.is_string() ? type.get<std::string>() : "");
    const bool known = std::all_of(types.begin(), types.end(), [](const std::string& t) { return t == "full_attention" || t == "sliding_attention"; });
    if (types.size() != spec.layers.size() || !known) {
      reader.wrong("layer_types", "full_attention or sliding_attention for each layer");
      types.clear();
    }
  }
  reader.ignore({"layer_types"});
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    if (types.empty() ? is_sliding(i) : types[i] == "sliding_attention") spec.layers[i].attention().window = window;
  }
}

void limit_context_to_window(const DecoderSpec& spec, GgufKeys& keys) {
  int64_t context = spec.max_positions;
  for (const auto& layer : spec.layers) {
    if (layer.attention().window > 0) context = std::min(context, layer.attention().window);
  }
  keys.u32("context_length", context);
}

void set_head_norms(DecoderSpec& spec, AttentionSpec::HeadNorm place) {
  for (auto& layer : spec.layers) {
    layer.attention().head_norm = layer.mixer_norm;
    layer.attention().head_norm_place = place;
  }
}

void refuse_biases(const DecoderSpec& spec, const GgufKeys& keys) {
  const auto has_biases = [](const LayerSpec& layer) {
    return layer.attention().input_bias || layer.attention().output_bias || (layer.experts() ? layer.experts()->bias : layer.mlp().bias);
  };
  if (std::none_of(spec.layers.begin(), spec.layers.end(), has_biases)) return;
  fail("models", "expected no biases, as llama.cpp computes {}, got a model with some — export safetensors or peft", keys.architecture());
}

WeightNames llama_names_with(std::initializer_list<std::pair<const std::string, PartName>> layer_parts) {
  auto names = llama_names();
  for (const auto& [part, name] : layer_parts) names.layer[part] = name;
  return names;
}

bool has_tensor(const GgufFile& file, const char* name) { return file.find(name) != nullptr; }

}  // namespace graft
