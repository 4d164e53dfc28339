// glm4_moe_lite: GLM-4.7-Flash. DeepSeek V3's latent attention and router; which layers are dense is a list, or the first one.
#include "trainer/models/families/latent_layers.h"

namespace graft {
namespace {

DenseLayers read_layer_types(ConfigReader& reader, int64_t layers) {
  DenseLayers dense;
  if (!reader.has("mlp_layer_types")) {
    reader.ignore({"mlp_layer_types"});
    dense.insert(0);
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
  const bool first = dense.empty() || *dense.rbegin() == static_cast<int64_t>(dense.size()) - 1;
  if (reader.has("first_k_dense_replace") && (!first || reader.need_int("first_k_dense_replace", 0) != static_cast<int64_t>(dense.size()))) {
    reader.wrong("first_k_dense_replace", "what mlp_layer_types says (absent: 1)");
  }
  reader.ignore({"first_k_dense_replace"});
  return dense;
}

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "glm4_moe_lite");
  LlamaDefaults defaults;
  defaults.own_ropes = true;
  auto spec = llama_like_spec(reader, "glm4_moe_lite", defaults);
  read_latent_attention(reader, spec, reader.bool_or("rope_interleave", true));
  auto experts = read_deepseek_experts(reader);
  read_sigmoid_router(reader, experts.router);
  const auto dense = read_layer_types(reader, static_cast<int64_t>(spec.layers.size()));
  reader.finish();
  set_experts(spec, experts, dense);
  return spec;
}

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  write_latent_config(spec, config);
  config.erase("first_k_dense_replace");
  auto types = nlohmann::ordered_json::array();
  for (const auto& layer : spec.layers) types.push_back(layer.experts() ? "sparse" : "dense");
  config["mlp_layer_types"] = types;
  config["topk_method"] = "noaux_tc";
  config["num_nextn_predict_layers"] = 0;
  if (!spec.ropes[0].neighbouring_pairs) config["rope_interleave"] = false;
}

}  // namespace

Family glm4_moe_lite_family() {
  return {"glm4_moe_lite", "Glm4MoeLiteForCausalLM", "deepseek2", from_config, latent_spec_from_gguf, latent_weights, add_config, write_latent_gguf};
}

}  // namespace graft
