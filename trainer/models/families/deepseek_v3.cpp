// deepseek_v3: DeepSeek V3, R1, V3.1, Moonlight. kimi_k2: the same layers under another name. Latent attention; sigmoid router with groups, shared experts, dense first
// layers.
#include "trainer/models/families/latent_layers.h"

namespace graft {
namespace deepseek_v3 {

DecoderSpec read(const nlohmann::ordered_json& config, const char* family) {
  ConfigReader reader(config, family);
  LlamaDefaults defaults;
  defaults.own_ropes = true;
  auto spec = llama_like_spec(reader, family, defaults);
  read_latent_attention(reader, spec, reader.bool_or("rope_interleave", true));
  auto experts = read_deepseek_experts(reader);
  for (const char* key : {"n_group", "topk_group"}) reader.at(key);   // absent is missing: transformers' class then has 8 and 4
  read_sigmoid_router(reader, experts.router);
  const auto dense = read_first_dense_layers(reader);
  reader.finish();
  set_experts(spec, experts, dense);
  return spec;
}

DecoderSpec from_config(const nlohmann::ordered_json& config) { return read(config, "deepseek_v3"); }
DecoderSpec kimi_from_config(const nlohmann::ordered_json& config) { return read(config, "kimi_k2"); }

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  write_latent_config(spec, config);
  config["scoring_func"] = "sigmoid";
  config["topk_method"] = "noaux_tc";
  config["num_nextn_predict_layers"] = 0;
  if (!spec.ropes[0].neighbouring_pairs) config["rope_interleave"] = false;
}

}  // namespace deepseek_v3

Family deepseek_v3_family() {
  using namespace deepseek_v3;
  return {"deepseek_v3", "DeepseekV3ForCausalLM", "deepseek2", from_config, latent_spec_from_gguf, latent_weights, add_config, write_latent_gguf};
}

Family kimi_k2_family() {
  using namespace deepseek_v3;
  return {"kimi_k2", "DeepseekV3ForCausalLM", "deepseek2", kimi_from_config, latent_spec_from_gguf, latent_weights, add_config, write_latent_gguf};
}

}  // namespace graft
