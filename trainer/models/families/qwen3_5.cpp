// qwen3_5_text: the text model of Qwen3.5 to 3.8, dense. qwen3_5_moe_text: with experts. Layers as qwen3_next's, whose projections are apart.
#include "trainer/models/families/delta_layers.h"

namespace graft {
namespace qwen3_5 {

using Form = DeltaAttentionSpec::Form;

DecoderSpec read(ConfigReader& reader, const char* family, const LlamaDefaults& defaults) {
  auto spec = llama_like_spec(reader, family, defaults);
  read_delta_layers(reader, spec, Form::kByPart);
  if (!reader.bool_or("attn_output_gate", true)) reader.wrong("attn_output_gate", "true");
  reader.ignore({"mtp_num_hidden_layers", "mtp_use_dedicated_embeddings", "mamba_ssm_dtype", "mlp_only_layers"});
  return spec;
}

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "qwen3_5_text");
  auto spec = read(reader, "qwen3_5_text", delta_defaults());
  reader.finish();
  return spec;
}

DecoderSpec moe_from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "qwen3_5_moe_text");
  auto defaults = delta_defaults();
  defaults.dense_width = 1;   // no layer is dense
  auto spec = read(reader, "qwen3_5_moe_text", defaults);
  const auto experts = read_shared_expert(reader, true);
  if (!experts.router.renormalise) reader.wrong("norm_topk_prob", "true");
  reader.finish();
  set_experts(spec, experts, {});
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) { return delta_spec_from_gguf(file, "qwen3_5_text", Form::kByPart, true); }

DecoderSpec moe_from_gguf(const GgufFile& file) {
  auto spec = delta_spec_from_gguf(file, "qwen3_5_moe_text", Form::kByPart, true);
  auto experts = experts_from_gguf(file);
  experts.router.renormalise = experts.shared_gate = experts.has_balancing_loss = true;
  set_experts(spec, experts, {});
  return spec;
}

void add_moe_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  add_delta_config(spec, config);
  config["shared_expert_intermediate_size"] = spec.experts()->shared_width;
  add_qwen_experts(spec, config);
  for (const char* key : {"intermediate_size", "norm_topk_prob", "decoder_sparse_step", "mlp_only_layers"}) config.erase(key);
}

// Which pairs turn by the position in time, which by an image's rows and columns: in text the three are one, but llama.cpp wants to be told.
void add_gguf(const DecoderSpec& spec, GgufKeys& keys) {
  add_delta_gguf(spec, keys);
  const int64_t pairs = spec.ropes.at(0).rotary_size / 2;
  keys.list("rope.dimension_sections", {(pairs + 2) / 3, (pairs + 1) / 3, pairs / 3, 0});
}

void add_moe_gguf(const DecoderSpec& spec, GgufKeys& keys) {
  add_gguf(spec, keys);
  write_experts(spec, keys);
}

}  // namespace qwen3_5

Family qwen3_5_text_family() {
  using namespace qwen3_5;
  return {"qwen3_5_text", "Qwen3_5ForCausalLM", "qwen35", from_config, from_gguf, delta_weights, add_delta_config, add_gguf};
}

Family qwen3_5_moe_text_family() {
  using namespace qwen3_5;
  return {"qwen3_5_moe_text", "Qwen3_5MoeForCausalLM", "qwen35moe", moe_from_config, moe_from_gguf, delta_weights, add_moe_config, add_moe_gguf};
}

}  // namespace graft
