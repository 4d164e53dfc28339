// chatglm: ChatGLM2, ChatGLM3 and GLM-4-9B as their authors publish them: own key and tensor names, query, key and value in one matrix.
#include <algorithm>
#include <cmath>

#include "trainer/models/families/llama_like.h"

namespace graft {
namespace chatglm {

void set_layers(DecoderSpec& spec, bool qkv_bias, bool bias) {
  spec.ropes[0].neighbouring_pairs = true;
  for (auto& layer : spec.layers) {
    layer.attention().fused = layer.mlp().fused = true;
    layer.attention().input_bias = qkv_bias;
    layer.attention().output_bias = layer.mlp().bias = bias;
  }
}

void expect_true(ConfigReader& reader, std::initializer_list<const char*> keys) {
  for (const auto* key : keys) {
    if (!reader.bool_or(key, true)) reader.wrong(key, "true");
  }
}

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "chatglm");
  DecoderSpec spec;
  spec.family = "chatglm";
  spec.vocab_size = reader.need_int("padded_vocab_size");
  spec.hidden_size = reader.need_int("hidden_size", 1, kLargestCount);
  spec.max_positions = reader.need_int("seq_length");
  spec.tied_head = reader.bool_or("tie_word_embeddings", false);
  LayerSpec layer;
  const NormSpec norm{reader.need_float("layernorm_epsilon")};
  layer.mixer_norm = layer.channel_norm = spec.final_norm = norm;
  auto& attention = layer.attention();
  attention.num_heads = reader.need_int("num_attention_heads", 1, kLargestCount);
  const bool grouped = reader.bool_or("multi_query_attention", false);
  const int64_t groups = reader.int_or("multi_query_group_num", 1);
  attention.num_kv_heads = grouped ? std::max<int64_t>(groups, 1) : attention.num_heads;
  attention.head_size = reader.need_int("kv_channels", 2, 4096);
  attention.scale = 1 / std::sqrt(static_cast<double>(attention.head_size));
  layer.mlp().width = reader.need_int("ffn_hidden_size", 1, kLargestCount * 4);
  spec.layers.assign(static_cast<size_t>(reader.need_int("num_layers", 1, 4096)), layer);
  RopeSpec rope;
  rope.rotary_size = attention.head_size / 2;
  rope.theta = 10000 * reader.float_or("rope_ratio", 1);
  spec.ropes = {rope};
  set_layers(spec, reader.bool_or("add_qkv_bias", false), reader.bool_or("add_bias_linear", false));
  expect_true(reader, {"rmsnorm", "post_layer_norm", "original_rope"});
  reader.expect_false({"apply_residual_connection_post_layernorm", "interleaved_qkv", "prefix_projection"});
  if (reader.int_or("quantization_bit", 0) != 0) reader.wrong("quantization_bit", "0: plain weights");
  if (reader.has("pre_seq_len")) reader.wrong("pre_seq_len", "null");
  reader.ignore({"pre_seq_len", "vocab_size", "hidden_dropout", "classifier_dropout", "bias_dropout_fusion", "apply_query_key_layer_scaling",
                 "attention_softmax_in_fp32", "fp32_residual_connection", "num_hidden_layers", "attn_implementation"});
  reader.finish();
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  auto spec = llama_like_spec(file, "chatglm");
  set_layers(spec, has_tensor(file, "blk.0.attn_qkv.bias"), has_tensor(file, "blk.0.attn_output.bias"));
  return spec;
}

WeightMap weights(const DecoderSpec& spec) {
  auto names = llama_names_with({{"attention.qkv", {"self_attention.query_key_value", "attn_qkv"}},
                                 {"attention.output", {"self_attention.dense", "attn_output"}},
                                 {"mlp.gate_up", {"mlp.dense_h_to_4h", "ffn_up"}},
                                 {"mlp.down", {"mlp.dense_4h_to_h", "ffn_down"}}});
  names.hub_layers = "transformer.encoder.layers.";
  names.model = {{"embedding", {"transformer.embedding.word_embeddings", "token_embd"}},
                 {"final_norm", {"transformer.encoder.final_layernorm", "output_norm"}},
                 {"head", {"transformer.output_layer", "output"}}};
  auto map = weight_map_of(spec, names);
  map.ignored.push_back("*rotary_pos_emb.inv_freq");
  return map;
}

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  const auto& attention = spec.layers[0].attention();
  const auto model_type = config["model_type"], architectures = config["architectures"];
  config = {{"architectures", architectures}, {"model_type", model_type}, {"padded_vocab_size", spec.vocab_size}, {"hidden_size", spec.hidden_size},
            {"seq_length", spec.max_positions}, {"layernorm_epsilon", spec.final_norm.epsilon}, {"num_attention_heads", attention.num_heads},
            {"multi_query_attention", true}, {"multi_query_group_num", attention.num_kv_heads}, {"kv_channels", attention.head_size},
            {"ffn_hidden_size", spec.layers[0].mlp().width}, {"num_layers", spec.layers.size()}, {"rope_ratio", spec.ropes[0].theta / 10000},
            {"add_qkv_bias", attention.input_bias}, {"add_bias_linear", attention.output_bias}, {"rmsnorm", true}, {"post_layer_norm", true},
            {"tie_word_embeddings", spec.tied_head}};
}

}  // namespace chatglm

Family chatglm_family() {
  using namespace chatglm;
  return {"chatglm", "ChatGLMModel", "chatglm", from_config, from_gguf, weights, add_config, nullptr, "blk.0.attn_qkv.weight"};
}

}  // namespace graft
