// A spec written back as the configuration of an exported model.
#include "trainer/models/families/family.h"
#include "trainer/models/families/gguf_keys.h"
#include "trainer/models/families/rope_config.h"

namespace graft {

using nlohmann::ordered_json;

ordered_json config_from_spec(const DecoderSpec& spec) {
  const auto& family = family_of_model_type(spec.family);
  const auto& layer = spec.attention_layer();
  const auto heads = layer.heads();
  const int64_t head_size = layer.latent_attention() ? layer.latent_attention()->rotary_size : heads.size;   // what rotary embedding is said of
  ordered_json config;
  config["architectures"] = {family.architecture};
  config["model_type"] = spec.family;
  config["vocab_size"] = spec.vocab_size;
  config["hidden_size"] = spec.hidden_size;
  config["intermediate_size"] = spec.dense_width();
  config["num_hidden_layers"] = spec.layers.size();
  config["num_attention_heads"] = heads.num_heads;
  config["num_key_value_heads"] = heads.num_kv_heads;
  config["head_dim"] = head_size;
  config["hidden_act"] = "silu";
  config["max_position_embeddings"] = spec.max_positions;
  config["rms_norm_eps"] = spec.final_norm.epsilon;
  config["tie_word_embeddings"] = spec.tied_head;
  config["pad_token_id"] = nullptr;   // some classes' own default lies beyond a smaller vocabulary; a tokenizer's replaces it
  if (!spec.ropes.empty()) write_rope(spec.ropes[0], head_size, config);
  if (family.add_config) family.add_config(spec, config);
  return config;
}

std::vector<GgufEntry> gguf_hyperparameters(const DecoderSpec& spec) {
  const auto& family = family_of_model_type(spec.family);
  const auto heads = spec.attention_layer().heads();
  GgufKeys keys(family.gguf_architecture);
  keys.u32("block_count", static_cast<int64_t>(spec.layers.size()));
  keys.u32("context_length", spec.max_positions);
  keys.u32("embedding_length", spec.hidden_size);
  keys.u32("feed_forward_length", spec.dense_width());
  keys.u32("attention.head_count", heads.num_heads);
  keys.u32("attention.head_count_kv", heads.num_kv_heads);
  keys.f32(spec.final_norm.kind == NormSpec::Kind::kLayer ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", spec.final_norm.epsilon);
  keys.u32("attention.key_length", heads.size);
  keys.u32("attention.value_length", heads.size);
  if (!spec.ropes.empty()) write_rope(spec.ropes[0], keys);
  keys.u32("vocab_size", spec.vocab_size);
  if (family.add_gguf) family.add_gguf(spec, keys);
  return keys.entries();
}

}  // namespace graft
