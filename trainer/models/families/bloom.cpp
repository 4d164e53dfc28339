// bloom: BLOOM and BLOOMZ. LayerNorms, one of them on the embeddings; attention with linear biases instead of positions; a plain GELU MLP.
#include <cmath>

#include "trainer/models/families/llama_like.h"

namespace graft {
namespace bloom {

constexpr int64_t kTrainedPositions = 2048;   // where the configuration names none; linear biases reach further

void set_layers(DecoderSpec& spec) {
  spec.ropes.clear();
  spec.embedding.norm = spec.final_norm;
  for (auto& layer : spec.layers) {
    auto& attention = layer.attention();
    attention.fused = attention.input_bias = attention.output_bias = attention.alibi = true;
    attention.rope.reset();
    auto& mlp = layer.mlp();
    mlp.activation = MlpSpec::Activation::kGeluTanh;
    mlp.gated = false;
    mlp.bias = true;
  }
}

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "bloom");
  DecoderSpec spec;
  spec.family = "bloom";
  const auto either = [&](const char* one, const char* other) { return reader.has(other) ? other : one; };
  spec.vocab_size = reader.need_int("vocab_size");
  spec.hidden_size = reader.need_int(either("hidden_size", "n_embed"), 1, kLargestCount);
  spec.max_positions = reader.int_or("seq_length", kTrainedPositions);
  spec.tied_head = reader.bool_or("tie_word_embeddings", true);
  LayerSpec layer;
  const NormSpec norm{reader.need_float("layer_norm_epsilon"), NormSpec::Kind::kLayer};
  layer.mixer_norm = layer.channel_norm = spec.final_norm = norm;
  auto& attention = layer.attention();
  attention.num_heads = attention.num_kv_heads = reader.need_int(either("n_head", "num_attention_heads"), 1, kLargestCount);
  attention.head_size = spec.hidden_size / attention.num_heads;
  attention.scale = 1 / std::sqrt(static_cast<double>(attention.head_size));
  layer.mlp().width = 4 * spec.hidden_size;
  spec.layers.assign(static_cast<size_t>(reader.need_int(either("n_layer", "num_hidden_layers"), 1, 4096)), layer);
  if (spec.hidden_size % attention.num_heads != 0) reader.wrong("hidden_size", "a multiple of the heads");
  reader.expect_false({"apply_residual_connection_post_layernorm"});
  if (reader.has("n_inner") && reader.int_or("n_inner", 0) != 4 * spec.hidden_size) reader.wrong("n_inner", "null");
  reader.ignore({"n_inner", "hidden_size", "n_embed", "n_head", "num_attention_heads", "n_layer", "num_hidden_layers", "hidden_dropout", "attention_softmax_in_fp32",
                 "bias_dropout_fusion", "masked_softmax_fusion", "offset_alibi", "skip_bias_add", "skip_bias_add_qkv", "slow_but_exact"});
  reader.finish();
  set_layers(spec);
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  auto spec = llama_like_spec(file, "bloom");
  set_layers(spec);
  return spec;
}

WeightMap weights(const DecoderSpec& spec) {
  WeightNames names;
  names.hub_layers = "transformer.h.";
  names.model = {{"embedding", {"transformer.word_embeddings", "token_embd"}},
                 {"embedding_norm", {"transformer.word_embeddings_layernorm", "token_embd_norm"}},
                 {"final_norm", {"transformer.ln_f", "output_norm"}},
                 {"head", {"lm_head", "output"}}};
  names.layer = {{"mixer_norm", {"input_layernorm", "attn_norm"}},
                 {"attention.qkv", {"self_attention.query_key_value", "attn_qkv"}},
                 {"attention.output", {"self_attention.dense", "attn_output"}},
                 {"channel_norm", {"post_attention_layernorm", "ffn_norm"}},
                 {"mlp.up", {"mlp.dense_h_to_4h", "ffn_up"}},
                 {"mlp.down", {"mlp.dense_4h_to_h", "ffn_down"}}};
  auto map = weight_map_of(spec, names);
  const int64_t heads = spec.layers[0].attention().num_heads;
  for_part(map, "attention.qkv", [&](WeightRule& rule) { rule.hub_form = {StoredForm::Rows::kPartsByHead, heads}; });
  map.hub_aliases = {{"transformer.", ""}};
  return map;
}

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  const auto model_type = config["model_type"], architectures = config["architectures"];
  config = {{"architectures", architectures}, {"model_type", model_type}, {"vocab_size", spec.vocab_size}, {"hidden_size", spec.hidden_size},
            {"n_layer", spec.layers.size()}, {"n_head", spec.layers[0].attention().num_heads}, {"layer_norm_epsilon", spec.final_norm.epsilon},
            {"seq_length", spec.max_positions}, {"tie_word_embeddings", spec.tied_head}};
}

}  // namespace bloom

Family bloom_family() {
  using namespace bloom;
  return {"bloom", "BloomForCausalLM", "bloom", from_config, from_gguf, weights, add_config};
}

}  // namespace graft
