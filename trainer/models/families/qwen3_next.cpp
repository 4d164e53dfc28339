// qwen3_next: three layers of Gated DeltaNet for one of gated attention; experts with a shared one behind a sigmoid gate; norms of 1 + weight.
#include "trainer/models/families/delta_layers.h"

namespace graft {
namespace qwen3_next {

using Form = DeltaAttentionSpec::Form;

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "qwen3_next");
  auto spec = llama_like_spec(reader, "qwen3_next", delta_defaults());
  read_delta_layers(reader, spec, Form::kByKeyHead);
  const auto experts = read_shared_expert(reader, true);
  const auto dense = read_qwen_dense_layers(reader);
  reader.finish();
  set_experts(spec, experts, dense);
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  auto spec = delta_spec_from_gguf(file, "qwen3_next", Form::kByKeyHead, false);
  auto experts = experts_from_gguf(file);
  experts.router.renormalise = experts.shared_gate = experts.has_balancing_loss = true;
  set_experts(spec, experts, dense_layers_of(file, spec));
  return spec;
}

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  add_delta_config(spec, config);
  config["shared_expert_intermediate_size"] = spec.experts()->shared_width;
  add_qwen_experts(spec, config);
}

void add_gguf(const DecoderSpec& spec, GgufKeys& keys) {
  add_delta_gguf(spec, keys);
  refuse_dense_layers(spec, keys);
  refuse_weights(spec, keys, /*normalised=*/false);
  write_experts(spec, keys);
}

}  // namespace qwen3_next

Family qwen3_next_family() {
  using namespace qwen3_next;
  return {"qwen3_next", "Qwen3NextForCausalLM", "qwen3next", from_config, from_gguf, delta_weights, add_config, add_gguf};
}

}  // namespace graft
