#include "trainer/models/families/latent_layers.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "kernels/common/error.h"

namespace graft {
namespace {

constexpr int64_t kMostHeads = 4096, kLargestPart = 4096;   // larger ones are damage
constexpr int64_t kFurtherLayers = 4;                       // that predict further tokens, at most

// transformers: yarn's mscale_all_dim scales queries and keys, so scores by its square.
double score_scale(const LatentAttentionSpec& attention, const RopeSpec& rope) {
  const double mscale = rope.mscale_all_dim == 0 ? 1 : yarn_mscale(rope.factor, rope.mscale_all_dim);
  return mscale * mscale / std::sqrt(static_cast<double>(attention.query_size()));
}

void expect_text(ConfigReader& reader, const char* key, const char* expected) {
  if (reader.string_or(key, expected) != expected) reader.wrong(key, expected);
}

// llama.cpp scales cosines and scores by YaRN as DeepSeek's files have it: mscale and mscale_all_dim equal.
RopeSpec rope_from_gguf(const GgufFile& file, const LatentAttentionSpec& attention, int64_t max_positions) {
  const GgufReader reader(file);
  auto rope = read_rope(file, attention.rotary_size, max_positions);
  rope.neighbouring_pairs = true;
  if (rope.scaling == RopeSpec::Scaling::kNone) return rope;
  const auto multiplier = static_cast<float>(reader.float_or("rope.scaling.yarn_log_multiplier", 0));
  if (rope.scaling != RopeSpec::Scaling::kYarn || multiplier == 0 || reader.float_or("rope.scaling.attn_factor", 1) != 1) {
    fail("models", "expected rope.scaling.type none, or yarn with a yarn_log_multiplier and without attn_factor, got another scaling ({}) — it is not supported with latent "
         "attention", reader.name());
  }
  rope.mscale = rope.mscale_all_dim = static_cast<double>(multiplier / 0.1f);   // as llama.cpp undoes its converter
  rope.attention_factor = 1;
  return rope;
}

LatentAttentionSpec attention_from_gguf(const GgufFile& file, double epsilon) {
  const GgufReader reader(file);
  if (has_tensor(file, "blk.0.attn_kv_b.weight")) {
    fail("models", "expected attn_k_b and attn_v_b, got attn_kv_b ({}) — the file was written before llama.cpp split it: convert the model anew", reader.name());
  }
  if (reader.float_or("attention.temperature_scale", 0) != 0) fail("models", "expected no attention.temperature_scale, got one ({}) — this model is not supported", reader.name());
  LatentAttentionSpec attention;
  attention.num_heads = reader.need_int("attention.head_count", kMostHeads);
  attention.rotary_size = reader.need_int("rope.dimension_count", kLargestPart);
  attention.value_size = reader.need_int("attention.value_length_mla", kLargestPart);
  attention.key_value_rank = reader.need_int("attention.kv_lora_rank", kLargestCount);
  attention.query_rank = reader.int_or("attention.q_lora_rank", 0);
  attention.plain_size = reader.need_int("attention.key_length_mla", kLargestPart) - attention.rotary_size;
  if (attention.plain_size < 1 || attention.query_rank < 0 || attention.query_rank > kLargestCount) {
    fail("models", "expected attention.key_length_mla above rope.dimension_count and attention.q_lora_rank from 0 to {}, got others ({})", kLargestCount, reader.name());
  }
  attention.latent_epsilon = epsilon;   // llama.cpp has one for all norms
  return attention;
}

}  // namespace

void read_latent_attention(ConfigReader& reader, DecoderSpec& spec, bool interleaved) {
  const auto& heads = spec.layers[0].attention();
  LatentAttentionSpec attention;
  attention.num_heads = heads.num_heads;
  if (heads.num_heads > kMostHeads) reader.wrong("num_attention_heads", fmt::format("at most {}", kMostHeads));
  if (heads.num_kv_heads != heads.num_heads) reader.wrong("num_key_value_heads", "num_attention_heads: every head has keys of its own");
  attention.plain_size = reader.need_int("qk_nope_head_dim", 1, kLargestPart);
  attention.rotary_size = reader.need_int("qk_rope_head_dim", 2, kLargestPart);
  attention.value_size = reader.need_int("v_head_dim", 1, kLargestPart);
  attention.key_value_rank = reader.need_int("kv_lora_rank", 1, kLargestCount);
  attention.query_rank = reader.at("q_lora_rank").is_null() ? 0 : reader.need_int("q_lora_rank", 1, kLargestCount);
  attention.bias = reader.bool_or("attention_bias", false);
  RopeDefaults defaults;
  defaults.neighbouring_pairs = interleaved;
  const auto rope = read_rope(reader, attention.rotary_size, spec.max_positions, defaults);
  if (rope.rotary_size != attention.rotary_size) reader.wrong("partial_rotary_factor", "1: qk_rope_head_dim says how many elements turn");
  if (rope.scaling != RopeSpec::Scaling::kNone && rope.scaling != RopeSpec::Scaling::kYarn) reader.wrong("rope_scaling", "none or yarn with latent attention");
  attention.scale = score_scale(attention, rope);
  reader.ignore({"head_dim", "qk_head_dim"});   // transformers 5 writes them: they follow from the others
  spec.ropes = {rope};
  for (auto& layer : spec.layers) layer.mixer = attention;
}

ExpertsSpec read_deepseek_experts(ConfigReader& reader) {
  ExpertsSpec experts;
  experts.router = read_router(reader, {"n_routed_experts", "num_local_experts"});
  experts.router.scale = reader.need_float("routed_scaling_factor");
  experts.width = reader.need_int("moe_intermediate_size", 1, kLargestCount);
  experts.shared_width = experts.width * reader.need_int("n_shared_experts", 1, kLargestPart);
  if (reader.int_or("moe_layer_freq", 1) != 1) reader.wrong("moe_layer_freq", "1");
  reader.ignore({"aux_loss_alpha", "seq_aux", "ep_size", "num_nextn_predict_layers", "num_mtp_layers"});
  return experts;
}

void read_sigmoid_router(ConfigReader& reader, RouterSpec& router) {
  read_groups(reader, router);
  expect_text(reader, "scoring_func", "sigmoid");
  expect_text(reader, "topk_method", "noaux_tc");
  router.score = RouterSpec::Score::kSigmoid;
  router.selection_bias = true;
  router.renormalise = reader.bool_or("norm_topk_prob", true);
  router.smallest_sum = 1e-20;
}

DenseLayers read_first_dense_layers(ConfigReader& reader) {
  const int64_t layers = reader.need_int("num_hidden_layers"), count = reader.need_int("first_k_dense_replace", 0);
  if (count >= layers) reader.wrong("first_k_dense_replace", "fewer than num_hidden_layers");
  DenseLayers dense;
  for (int64_t layer = 0; layer < std::min(count, layers); ++layer) dense.insert(layer);
  return dense;
}

DenseLayers read_mlp_layer_types(ConfigReader& reader, int64_t first, std::optional<int64_t> class_default) {
  const int64_t layers = reader.need_int("num_hidden_layers");
  DenseLayers dense;
  if (!reader.has("mlp_layer_types")) {
    reader.ignore({"mlp_layer_types"});
    for (int64_t layer = 0; layer < std::min(first, layers); ++layer) dense.insert(layer);
  } else {
    const auto& types = reader.at("mlp_layer_types");
    bool known = types.is_array() && static_cast<int64_t>(types.size()) == layers;
    for (int64_t layer = 0; known && layer < layers; ++layer) {
      known = types[static_cast<size_t>(layer)] == "dense" || types[static_cast<size_t>(layer)] == "sparse";
      if (types[static_cast<size_t>(layer)] == "dense") dense.insert(layer);
    }
    if (!known) reader.wrong("mlp_layer_types", "dense or sparse for each layer");
  }
  if (static_cast<int64_t>(dense.size()) >= layers) reader.wrong("mlp_layer_types", "a layer with experts (sparse)");
  // Published beside it; transformers reads the list, so the two must agree.
  const auto said = reader.int_or("first_k_dense_replace", -1), count = static_cast<int64_t>(dense.size());
  const bool agree = said == count && (dense.empty() || *dense.rbegin() == count - 1);
  if (said >= 0 && !agree && said != class_default) reader.wrong("first_k_dense_replace", fmt::format("what mlp_layer_types says (absent: {})", std::min(first, layers)));
  return dense;
}

void write_mlp_layer_types(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  const auto dense = dense_layers(spec);
  if (!dense.empty() && dense.back() != static_cast<int64_t>(dense.size()) - 1) config.erase("first_k_dense_replace");   // other readers than transformers want it
  auto types = nlohmann::ordered_json::array();
  for (const auto& layer : spec.layers) types.push_back(layer.experts() ? "sparse" : "dense");
  config["mlp_layer_types"] = types;
}

DecoderSpec latent_spec_from_gguf(const GgufFile& file) {
  const bool sigmoid = experts_from_gguf(file).router.score == RouterSpec::Score::kSigmoid;
  return latent_spec_from_gguf(file, sigmoid ? "deepseek_v3" : "deepseek_v2");
}

DecoderSpec latent_spec_from_gguf(const GgufFile& file, const std::string& family) {
  const GgufReader reader(file);
  auto experts = experts_from_gguf(file);
  auto& router = experts.router;
  const bool sigmoid = router.score == RouterSpec::Score::kSigmoid;
  auto spec = headless_spec(file, family);
  auto attention = attention_from_gguf(file, spec.final_norm.epsilon);
  spec.ropes = {rope_from_gguf(file, attention, spec.max_positions)};
  attention.scale = score_scale(attention, spec.ropes[0]);
  for (auto& layer : spec.layers) layer.mixer = attention;
  router.selection_bias = sigmoid;
  router.renormalise = reader.bool_or("expert_weights_norm", false);
  router.smallest_sum = 1e-20;
  experts.shared_width = experts.width * reader.need_int("expert_shared_count", kLargestPart);
  const auto dense = dense_layers_of(file, spec);
  if (dense.size() >= spec.layers.size()) fail("models", "expected a layer with ffn_gate_inp, got none ({}) — the file is damaged", reader.name());
  set_experts(spec, experts, dense);
  return spec;
}

WeightMap latent_weights(const DecoderSpec& spec) { return latent_weights(spec, llama_names()); }

WeightMap latent_weights(const DecoderSpec& spec, const WeightNames& names) {
  auto map = weight_map_of(spec, names);
  for (auto& rule : map.rules) {   // llama.cpp's graph adds adapters to the output's product only
    const auto attention = rule.ours.find(".attention.");
    if (attention != std::string::npos && !rule.ours.substr(attention).starts_with(".attention.output.")) rule.gguf_lora = false;
  }
  for (size_t layer = spec.layers.size(); layer < spec.layers.size() + kFurtherLayers; ++layer) {
    map.skipped.push_back(fmt::format("model.layers.{}.*", layer));
    map.skipped.push_back(fmt::format("blk.{}.*", layer));
  }
  return map;
}

void write_latent_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  const auto& attention = *spec.attention_layer().latent_attention();
  const auto& experts = *spec.experts();
  config.erase("head_dim");   // of what turns in transformers 5, of a query in others: left to each
  config["attention_bias"] = attention.bias;
  config["q_lora_rank"] = nullptr;
  if (attention.query_rank > 0) config["q_lora_rank"] = attention.query_rank;
  config["kv_lora_rank"] = attention.key_value_rank;
  config["qk_nope_head_dim"] = attention.plain_size;
  config["qk_rope_head_dim"] = attention.rotary_size;
  config["v_head_dim"] = attention.value_size;
  config["n_routed_experts"] = experts.router.num_experts;
  config["num_experts_per_tok"] = experts.router.experts_per_token;
  config["n_shared_experts"] = experts.shared_width / experts.width;
  config["moe_intermediate_size"] = experts.width;
  config["routed_scaling_factor"] = experts.router.scale;
  config["norm_topk_prob"] = experts.router.renormalise;
  config["n_group"] = experts.router.num_groups;
  config["topk_group"] = experts.router.groups_per_token;
  config["first_k_dense_replace"] = dense_layers(spec).size();
  config["moe_layer_freq"] = 1;
}

void write_latent_gguf(const DecoderSpec& spec, GgufKeys& keys) {
  const auto& attention = *spec.attention_layer().latent_attention();
  const auto& experts = *spec.experts();
  const auto rope = spec.ropes.empty() ? RopeSpec{.neighbouring_pairs = true} : spec.ropes[0];
  const auto dense = dense_layers(spec);
  const bool yarn = rope.scaling == RopeSpec::Scaling::kYarn;
  const double epsilon = spec.final_norm.epsilon;
  if (attention.bias) refuse(keys, "no biases in attention");
  if (!rope.neighbouring_pairs) refuse(keys, "rotary pairs of neighbours (rope_interleave true)");
  if (yarn && (rope.mscale_all_dim == 0 || std::abs(rope.attention_factor - 1) > 1e-6)) refuse(keys, "YaRN with mscale equal to mscale_all_dim");
  // One epsilon serves all norms there. Up to what published models have, a certificate says what that costs.
  if (epsilon != attention.latent_epsilon && epsilon > 1e-5) refuse(keys, "rms_norm_eps, which becomes that of the latents' norms too (here 1e-6), of at most 1e-5");
  if (!dense.empty() && dense.back() != static_cast<int64_t>(dense.size()) - 1) refuse(keys, "dense layers before all others");
  if (experts.router.num_groups > 1 && experts.router.group_score == RouterSpec::GroupScore::kBest) refuse(keys, "groups of experts by the sum of their two best scores");
  keys.u32("attention.head_count_kv", 1);   // all heads read one latent
  keys.u32("attention.key_length", attention.key_value_rank + attention.rotary_size);
  keys.u32("attention.value_length", attention.key_value_rank);
  keys.u32("attention.key_length_mla", attention.query_size());
  keys.u32("attention.value_length_mla", attention.value_size);
  keys.u32("attention.q_lora_rank", attention.query_rank);
  keys.u32("attention.kv_lora_rank", attention.key_value_rank);
  if (yarn) {
    keys.erase("rope.scaling.attn_factor");
    keys.f32("rope.scaling.yarn_log_multiplier", 0.1 * rope.mscale_all_dim);
  }
  write_experts(spec, keys);
  keys.erase("expert_shared_feed_forward_length");
  keys.u32("expert_shared_count", experts.shared_width / experts.width);
  keys.u32("leading_dense_block_count", static_cast<int64_t>(dense.size()));
  keys.u32("expert_group_count", experts.router.num_groups);
  keys.u32("expert_group_used_count", experts.router.groups_per_token);
  keys.f32("expert_weights_scale", experts.router.scale);
  keys.boolean("expert_weights_norm", experts.router.renormalise);
  write_gating(spec, keys);
}

}  // namespace graft
