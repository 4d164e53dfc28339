// glm4_moe_lite: GLM-4.7-Flash. DeepSeek V3's latent attention and router; which layers are dense is a list, or the first one.
#include "trainer/models/families/latent_layers.h"

namespace graft {
namespace glm4_moe_lite {

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "glm4_moe_lite");
  LlamaDefaults defaults;
  defaults.own_ropes = true;
  auto spec = llama_like_spec(reader, "glm4_moe_lite", defaults);
  read_latent_attention(reader, spec, reader.bool_or("rope_interleave", true));
  auto experts = read_deepseek_experts(reader);
  read_sigmoid_router(reader, experts.router);
  const auto dense = read_mlp_layer_types(reader, 1);
  reader.finish();
  set_experts(spec, experts, dense);
  return spec;
}

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  write_latent_config(spec, config);
  write_mlp_layer_types(spec, config);
  config["topk_method"] = "noaux_tc";
  config["num_nextn_predict_layers"] = 0;
  if (!spec.ropes[0].neighbouring_pairs) config["rope_interleave"] = false;
}

}  // namespace glm4_moe_lite

Family glm4_moe_lite_family() {
  using namespace glm4_moe_lite;
  return {"glm4_moe_lite", "Glm4MoeLiteForCausalLM", "deepseek2", from_config, latent_spec_from_gguf, latent_weights, add_config, write_latent_gguf};
}

}  // namespace graft
