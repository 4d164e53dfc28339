// hunyuan_v1_dense: Hunyuan 0.5B to 7B. RMS norm of each query and key head after the rotation; theta grows by a fixed alpha.
#include "trainer/models/families/llama_like.h"

namespace graft {
namespace hunyuan_v1_dense {

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "hunyuan_v1_dense");
  auto spec = llama_like_spec(reader, "hunyuan_v1_dense");
  const bool biases = reader.bool_or("attention_bias", false);
  for (auto& layer : spec.layers) layer.attention().input_bias = layer.attention().output_bias = biases;
  reader.expect_false({"use_cla", "add_classification_head", "mlp_bias"});
  for (const char* key : {"use_qk_norm", "use_rotary_pos_emb"}) {
    if (!reader.bool_or(key, true)) reader.wrong(key, "true");
  }
  if (reader.string_or("norm_type", "rms") != "rms") reader.wrong("norm_type", "rms");
  if (reader.int_or("num_experts", 1) > 1) reader.wrong("num_experts", "1");
  reader.ignore({"attention_head_dim", "cla_share_factor", "class_num", "dense_list", "im_end_id", "im_newline_id", "im_start_id", "image_token_id", "mask_init_id",
                 "org_vocab_size", "pad_id", "sep_token_id", "text_end_id", "text_start_id", "eod_token_id"});
  reader.finish();
  set_head_norms(spec, AttentionSpec::HeadNorm::kAfterRotation);
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  auto spec = llama_like_spec(file, "hunyuan_v1_dense");
  set_head_norms(spec, AttentionSpec::HeadNorm::kAfterRotation);
  return spec;
}

WeightMap weights(const DecoderSpec& spec) {
  return weight_map_of(spec, llama_names_with({{"attention.query_norm", {"self_attn.query_layernorm", "attn_q_norm"}},
                                               {"attention.key_norm", {"self_attn.key_layernorm", "attn_k_norm"}}}));
}

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) { config["attention_bias"] = spec.layers[0].attention().output_bias; }

void add_gguf(const DecoderSpec& spec, GgufKeys& keys) { refuse_biases(spec, keys); }

}  // namespace hunyuan_v1_dense

Family hunyuan_v1_dense_family() {
  using namespace hunyuan_v1_dense;
  return {"hunyuan_v1_dense", "HunYuanDenseV1ForCausalLM", "hunyuan-dense", from_config, from_gguf, weights, add_config, add_gguf};
}

}  // namespace graft
