#include "trainer/models/families/llama_like.h"

#include <cmath>
#include <cstring>

#include <fmt/ranges.h>

#include "kernels/common/error.h"

namespace graft {

using nlohmann::ordered_json;

ConfigReader::ConfigReader(const ordered_json& config, std::string family) : config_(config), family_(std::move(family)) {
  if (!config.is_object()) fail("models", "expected an object in config.json, got {} — is this a model directory?", config.type_name());
  ignore({"architectures", "model_type", "_name_or_path", "_model_name_or_path", "name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache",
          "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "initializer_range", "attention_dropout", "pretraining_tp",
          "output_hidden_states", "output_attentions", "return_dict", "chunk_size_feed_forward", "is_encoder_decoder",
          "is_llama_config", "id2label", "label2id", "problem_type", "unsloth_fixed", "unsloth_version", "_attn_implementation_autoset",
          "rope_interleaved", "transformers.js_config"});
}

bool ConfigReader::has(const std::string& key) const { return config_.contains(key) && !config_.at(key).is_null(); }

const ordered_json& ConfigReader::at(const std::string& key) {
  read_.insert(key);
  if (!config_.contains(key)) fail("models", "expected key {} in config.json of a {} model, got none — the file is incomplete", key, family_);
  return config_.at(key);
}

void ConfigReader::wrong(const std::string& key, const std::string& expected) const {
  const auto text = config_.contains(key) ? config_.at(key).dump() : std::string("nothing");
  fail("models", "expected {} for {}, got {} (config.json of a {} model) — this variant is not supported or the file is damaged", expected,
       key, text.substr(0, 200), family_);
}

int64_t ConfigReader::need_int(const std::string& key, int64_t smallest, int64_t largest) {
  const auto& value = at(key);
  if (!value.is_number_integer()) wrong(key, "an integer");
  const auto number = value.get<int64_t>();
  if (number < smallest || number > largest) wrong(key, fmt::format("an integer from {} to {}", smallest, largest));
  return number;
}

double ConfigReader::need_float(const std::string& key) {
  const auto& value = at(key);
  if (!value.is_number()) wrong(key, "a number");
  return value.get<double>();
}

int64_t ConfigReader::int_or(const std::string& key, int64_t otherwise) {
  read_.insert(key);
  return has(key) ? need_int(key, 0) : otherwise;
}

double ConfigReader::float_or(const std::string& key, double otherwise) {
  read_.insert(key);
  return has(key) ? need_float(key) : otherwise;
}

bool ConfigReader::bool_or(const std::string& key, bool otherwise) {
  read_.insert(key);
  if (!has(key)) return otherwise;
  if (!config_.at(key).is_boolean()) wrong(key, "true or false");
  return config_.at(key).get<bool>();
}

std::string ConfigReader::string_or(const std::string& key, const std::string& otherwise) {
  read_.insert(key);
  if (!has(key)) return otherwise;
  if (!config_.at(key).is_string()) wrong(key, "a text");
  return config_.at(key).get<std::string>();
}

void ConfigReader::ignore(std::initializer_list<const char*> keys) {
  for (const auto* key : keys) read_.insert(key);
}

void ConfigReader::finish() const {
  std::vector<std::string> unknown;
  for (const auto& [key, value] : config_.items()) {
    if (!read_.contains(key) && !value.is_null()) unknown.push_back(key);
  }
  if (!unknown.empty()) {
    fail("models", "expected only the keys of a {} model in config.json, got unknown {} — an unknown key may change the computation, so it is not ignored",
         family_, fmt::join(unknown, ", "));
  }
}

namespace {

// transformers 4 writes rope_theta and rope_scaling, transformers 5 rope_parameters; both together must agree.
RopeSpec read_rope(ConfigReader& reader, int64_t head_size) {
  RopeSpec rope;
  rope.rotary_size = head_size;
  reader.ignore({"rope_parameters", "rope_scaling"});
  ordered_json values = ordered_json::object();
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!reader.has(key)) continue;
    if (!reader.at(key).is_object()) reader.wrong(key, "an object");
    for (const auto& [name, value] : reader.at(key).items()) {
      if (values.contains(name) && values[name] != value) reader.wrong(key, "the same " + name + " in rope_scaling and rope_parameters");
      values[name] = value;
    }
  }
  const auto number = [&](const char* name, double otherwise) {
    if (!values.contains(name) || values[name].is_null()) return otherwise;
    if (!values[name].is_number()) reader.wrong("rope_parameters", std::string("a number for ") + name);
    return values[name].get<double>();
  };
  rope.theta = number("rope_theta", reader.float_or("rope_theta", 10000));
  if (number("partial_rotary_factor", 1) != 1) reader.wrong("rope_parameters", "partial_rotary_factor 1");
  std::string type = "default";
  for (const char* name : {"type", "rope_type"}) {
    if (values.contains(name) && values[name].is_string()) type = values[name].get<std::string>();
  }
  if (type == "linear") {
    rope.scaling = RopeSpec::Scaling::kLinear;
    rope.factor = number("factor", 1);
  } else if (type == "llama3") {
    rope.scaling = RopeSpec::Scaling::kLlama3;
    rope.factor = number("factor", 1);
    rope.low_frequency_factor = number("low_freq_factor", 1);
    rope.high_frequency_factor = number("high_freq_factor", 4);
    rope.original_max_positions = number("original_max_position_embeddings", 8192);
  } else if (type != "default") {
    reader.wrong(reader.has("rope_parameters") ? "rope_parameters" : "rope_scaling", "rope type default, linear or llama3");
  }
  if (!(rope.theta > 0) || !(rope.factor > 0)) reader.wrong("rope_theta", "a positive number");
  return rope;
}

void fill_layers(DecoderSpec& spec, int64_t num_layers, const LayerSpec& layer) {
  if (layer.attention.num_heads % layer.attention.num_kv_heads != 0) {
    fail("models", "expected a number of attention heads that is a multiple of the key-value heads, got {} and {} — the configuration contradicts itself",
         layer.attention.num_heads, layer.attention.num_kv_heads);
  }
  if (layer.attention.head_size % 2 != 0) fail("models", "expected an even head size, got {}", layer.attention.head_size);
  spec.layers.assign(num_layers, layer);
}

}  // namespace

DecoderSpec llama_like_spec(ConfigReader& reader, const std::string& family) {
  constexpr int64_t kLargestCount = 1 << 20;
  DecoderSpec spec;
  spec.family = family;
  spec.vocab_size = reader.need_int("vocab_size");
  spec.hidden_size = reader.need_int("hidden_size", 1, kLargestCount);
  spec.max_positions = reader.need_int("max_position_embeddings");
  spec.tied_head = reader.bool_or("tie_word_embeddings", false);
  if (reader.string_or("hidden_act", "silu") != "silu") reader.wrong("hidden_act", "silu");
  LayerSpec layer;
  const NormSpec norm{reader.need_float("rms_norm_eps")};
  layer.mixer_norm = layer.channel_norm = spec.final_norm = norm;
  auto& attention = layer.attention;
  attention.num_heads = reader.need_int("num_attention_heads", 1, kLargestCount);
  attention.num_kv_heads = reader.int_or("num_key_value_heads", attention.num_heads);
  if (attention.num_kv_heads < 1) reader.wrong("num_key_value_heads", "at least 1");
  attention.head_size = reader.int_or("head_dim", spec.hidden_size / attention.num_heads);
  if (attention.head_size < 2 || attention.head_size > 4096) reader.wrong("head_dim", "from 2 to 4096");
  attention.scale = 1 / std::sqrt(static_cast<double>(attention.head_size));
  layer.mlp.width = reader.need_int("intermediate_size", 1, kLargestCount * 4);
  spec.ropes = {read_rope(reader, attention.head_size)};
  fill_layers(spec, reader.need_int("num_hidden_layers", 1, 4096), layer);
  return spec;
}

DecoderSpec llama_like_spec(const GgufFile& file, const std::string& family) {
  const auto arch = file.need_string("general.architecture") + ".";
  const auto bounded = [&](const std::string& key, int64_t largest) {
    const auto value = file.need_int(arch + key);
    if (value < 1 || value > largest) {
      fail("models", "expected {}{} from 1 to {}, got {} ({})", arch, key, largest, value, file.path().filename().string());
    }
    return value;
  };
  DecoderSpec spec;
  spec.family = family;
  spec.hidden_size = bounded("embedding_length", 1 << 20);
  spec.max_positions = bounded("context_length", int64_t{1} << 31);
  const auto* embedding = file.find("token_embd.weight");
  if (!embedding || embedding->shape.size() != 2) {
    fail("models", "expected a tensor token_embd.weight with two dimensions, got {} ({})", embedding ? "another shape" : "none",
         file.path().filename().string());
  }
  spec.vocab_size = embedding->shape[0];
  spec.tied_head = file.find("output.weight") == nullptr;
  LayerSpec layer;
  const NormSpec norm{file.need_float(arch + "attention.layer_norm_rms_epsilon")};
  layer.mixer_norm = layer.channel_norm = spec.final_norm = norm;
  auto& attention = layer.attention;
  attention.num_heads = bounded("attention.head_count", 1 << 20);
  attention.num_kv_heads = file.get_int(arch + "attention.head_count_kv").value_or(attention.num_heads);
  attention.head_size = file.get_int(arch + "attention.key_length").value_or(spec.hidden_size / attention.num_heads);
  if (attention.num_kv_heads < 1 || attention.head_size < 2 || attention.head_size > 4096 ||
      file.get_int(arch + "attention.value_length").value_or(attention.head_size) != attention.head_size) {
    fail("models", "expected at least one key-value head and equal key and value lengths from 2 to 4096, got others ({})",
         file.path().filename().string());
  }
  attention.scale = 1 / std::sqrt(static_cast<double>(attention.head_size));
  layer.mlp.width = bounded("feed_forward_length", 1 << 22);
  RopeSpec rope;
  rope.rotary_size = attention.head_size;
  rope.theta = file.get_float(arch + "rope.freq_base").value_or(10000);
  if (file.get_int(arch + "rope.dimension_count").value_or(rope.rotary_size) != rope.rotary_size) {
    fail("models", "expected {}rope.dimension_count {}, got another: partial rotation is not part of this family ({})", arch,
         rope.rotary_size, file.path().filename().string());
  }
  const auto scaling = file.get_string(arch + "rope.scaling.type").value_or("none");
  if (scaling == "linear") {
    rope.scaling = RopeSpec::Scaling::kLinear;
    rope.factor = file.need_float(arch + "rope.scaling.factor");
  } else if (scaling != "none") {
    fail("models", "expected {}rope.scaling.type none or linear, got {} ({})", arch, scaling, file.path().filename().string());
  }
  if (const auto* divisors = file.find("rope_freqs.weight")) {   // llama3 scaling, worked out by the converter
    if (divisors->type != TensorType::kF32 || divisors->num_elements() != rope.rotary_size / 2) {
      fail("models", "expected rope_freqs.weight to hold {} float32 values, got others ({})", rope.rotary_size / 2, file.path().filename().string());
    }
    rope.frequency_divisors.resize(static_cast<size_t>(divisors->num_elements()));
    std::memcpy(rope.frequency_divisors.data(), divisors->bytes.data(), divisors->bytes.size());
  }
  spec.ropes = {rope};
  fill_layers(spec, bounded("block_count", 4096), layer);
  return spec;
}

WeightMap llama_like_weight_map(const DecoderSpec& spec, bool gguf_interleaved) {
  WeightMap map;
  const int64_t hidden = spec.hidden_size;
  map.rules.push_back({"embedding.weight", "model.embed_tokens.weight", "token_embd.weight", {spec.vocab_size, hidden}});
  for (size_t index = 0; index < spec.layers.size(); ++index) {
    const auto& layer = spec.layers[index];
    const auto& attention = layer.attention;
    const auto ours = fmt::format("layers.{}.", index), hub = fmt::format("model.layers.{}.", index), gguf = fmt::format("blk.{}.", index);
    const auto add = [&](const std::string& a, const std::string& b, const std::string& c, std::vector<int64_t> shape, int64_t heads = 0) {
      map.rules.push_back({ours + a, hub + b, gguf + c, std::move(shape), gguf_interleaved ? heads : 0});
    };
    const auto add_linear = [&](const std::string& a, const std::string& b, const std::string& c, int64_t out, int64_t in, bool bias,
                                int64_t heads = 0) {
      add(a + ".weight", b + ".weight", c + ".weight", {out, in}, heads);
      if (bias) add(a + ".bias", b + ".bias", c + ".bias", {out}, heads);
    };
    const int64_t query_size = attention.num_heads * attention.head_size, key_size = attention.num_kv_heads * attention.head_size;
    add("mixer_norm.weight", "input_layernorm.weight", "attn_norm.weight", {hidden});
    add_linear("attention.query", "self_attn.q_proj", "attn_q", query_size, hidden, attention.input_bias, attention.num_heads);
    add_linear("attention.key", "self_attn.k_proj", "attn_k", key_size, hidden, attention.input_bias, attention.num_kv_heads);
    add_linear("attention.value", "self_attn.v_proj", "attn_v", key_size, hidden, attention.input_bias);
    add_linear("attention.output", "self_attn.o_proj", "attn_output", hidden, query_size, attention.output_bias);
    if (attention.head_norm) {
      add("attention.query_norm.weight", "self_attn.q_norm.weight", "attn_q_norm.weight", {attention.head_size});
      add("attention.key_norm.weight", "self_attn.k_norm.weight", "attn_k_norm.weight", {attention.head_size});
    }
    add("channel_norm.weight", "post_attention_layernorm.weight", "ffn_norm.weight", {hidden});
    add_linear("mlp.gate", "mlp.gate_proj", "ffn_gate", layer.mlp.width, hidden, layer.mlp.bias);
    add_linear("mlp.up", "mlp.up_proj", "ffn_up", layer.mlp.width, hidden, layer.mlp.bias);
    add_linear("mlp.down", "mlp.down_proj", "ffn_down", hidden, layer.mlp.width, layer.mlp.bias);
  }
  map.rules.push_back({"final_norm.weight", "model.norm.weight", "output_norm.weight", {hidden}});
  if (!spec.tied_head) map.rules.push_back({"head.weight", "lm_head.weight", "output.weight", {spec.vocab_size, hidden}});
  map.ignored = {"rope_freqs.weight", "*rotary_emb.inv_freq", "*rotary_emb.cos_cached", "*rotary_emb.sin_cached"};
  // A tied checkpoint may still carry a copy of the embedding as lm_head.
  if (spec.tied_head) map.ignored.push_back("lm_head.weight");
  return map;
}

}  // namespace graft
