// gpt2: LayerNorms, learned positions, a plain GELU MLP; the hub stores its matrices transposed ([in, out]).
#include <cmath>

#include "trainer/models/families/llama_like.h"

namespace graft {
namespace gpt2 {

void set_layers(DecoderSpec& spec) {
  spec.ropes.clear();
  spec.embedding.learned_positions = true;
  for (auto& layer : spec.layers) {
    auto& attention = layer.attention();
    attention.fused = attention.input_bias = attention.output_bias = true;
    attention.rope.reset();
    auto& mlp = layer.mlp();
    mlp.activation = MlpSpec::Activation::kGeluTanh;
    mlp.gated = false;
    mlp.bias = true;
  }
}

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "gpt2");
  DecoderSpec spec;
  spec.family = "gpt2";
  spec.vocab_size = reader.need_int("vocab_size");
  spec.hidden_size = reader.need_int("n_embd", 1, kLargestCount);
  spec.max_positions = reader.need_int("n_positions");
  spec.tied_head = reader.bool_or("tie_word_embeddings", true);
  LayerSpec layer;
  const NormSpec norm{reader.need_float("layer_norm_epsilon"), NormSpec::Kind::kLayer};
  layer.mixer_norm = layer.channel_norm = spec.final_norm = norm;
  auto& attention = layer.attention();
  attention.num_heads = attention.num_kv_heads = reader.need_int("n_head", 1, kLargestCount);
  attention.head_size = spec.hidden_size / attention.num_heads;
  attention.scale = 1 / std::sqrt(static_cast<double>(attention.head_size));
  layer.mlp().width = reader.int_or("n_inner", 4 * spec.hidden_size);
  spec.layers.assign(static_cast<size_t>(reader.need_int("n_layer", 1, 4096)), layer);
  if (spec.hidden_size % attention.num_heads != 0) reader.wrong("n_embd", "a multiple of n_head");
  if (reader.string_or("activation_function", "gelu_new") != "gelu_new") reader.wrong("activation_function", "gelu_new");
  if (!reader.bool_or("scale_attn_weights", true)) reader.wrong("scale_attn_weights", "true");
  reader.expect_false({"scale_attn_by_inverse_layer_idx", "add_cross_attention"});
  reader.ignore({"n_ctx", "resid_pdrop", "embd_pdrop", "attn_pdrop", "reorder_and_upcast_attn", "summary_type", "summary_use_proj", "summary_activation",
                 "summary_proj_to_labels", "summary_first_dropout", "task_specific_params", "gradient_checkpointing"});
  reader.finish();
  set_layers(spec);
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  auto spec = llama_like_spec(file, "gpt2");
  set_layers(spec);
  return spec;
}

WeightMap weights(const DecoderSpec& spec) {
  WeightNames names;
  names.hub_layers = "transformer.h.";
  names.model = {{"embedding", {"transformer.wte", "token_embd"}},
                 {"position_embedding", {"transformer.wpe", "position_embd"}},
                 {"final_norm", {"transformer.ln_f", "output_norm"}},
                 {"head", {"lm_head", "output"}}};
  names.layer = {{"mixer_norm", {"ln_1", "attn_norm"}},   {"attention.qkv", {"attn.c_attn", "attn_qkv"}}, {"attention.output", {"attn.c_proj", "attn_output"}},
                 {"channel_norm", {"ln_2", "ffn_norm"}}, {"mlp.up", {"mlp.c_fc", "ffn_up"}},             {"mlp.down", {"mlp.c_proj", "ffn_down"}}};
  auto map = weight_map_of(spec, names);
  for (const char* part : {"attention.qkv", "attention.output", "mlp.up", "mlp.down"}) {
    for_part(map, part, [](WeightRule& rule) { rule.hub_form.transposed = rule.shape.size() == 2; });
  }
  map.hub_aliases = {{"transformer.", ""}};
  for (const char* mask : {"*.attn.bias", "*.attn.masked_bias"}) map.ignored.push_back(mask);
  return map;
}

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  const auto model_type = config["model_type"], architectures = config["architectures"];
  config = {{"architectures", architectures}, {"model_type", model_type}, {"vocab_size", spec.vocab_size}, {"n_embd", spec.hidden_size},
            {"n_layer", spec.layers.size()}, {"n_head", spec.layers[0].attention().num_heads}, {"n_positions", spec.max_positions}, {"n_ctx", spec.max_positions},
            {"n_inner", spec.layers[0].mlp().width}, {"activation_function", "gelu_new"}, {"layer_norm_epsilon", spec.final_norm.epsilon},
            {"tie_word_embeddings", spec.tied_head}};
}

}  // namespace gpt2

Family gpt2_family() {
  using namespace gpt2;
  return {"gpt2", "GPT2LMHeadModel", "gpt2", from_config, from_gguf, weights, add_config};
}

}  // namespace graft
