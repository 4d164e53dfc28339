// ernie4_5_moe: ERNIE 4.5 with experts. Neighbouring pairs; softmax router with a selection bias, shared experts as one MLP, dense layers around.
#include "trainer/models/families/expert_layers.h"
#include "trainer/models/families/llama_like.h"

namespace graft {
namespace ernie4_5_moe {

void set_router(RouterSpec& router) {
  router.selection_bias = router.renormalise = true;
  router.smallest_sum = 1e-12;
}

DenseLayers read_layers(ConfigReader& reader, int64_t layers) {
  const int64_t start = reader.int_or("moe_layer_start_index", 1), interval = std::max<int64_t>(1, reader.int_or("moe_layer_interval", 1));
  int64_t end = layers - 1;
  if (reader.has("moe_layer_end_index") && reader.at("moe_layer_end_index") != -1) end = reader.int_or("moe_layer_end_index", end);
  reader.ignore({"moe_layer_end_index"});
  DenseLayers dense;
  for (int64_t layer = 0; layer < layers; ++layer) {
    if (layer < start || layer > end || (layer + 1) % interval != 0) dense.insert(layer);
  }
  return dense;
}

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "ernie4_5_moe");
  LlamaDefaults defaults;
  defaults.rope.theta = 500000;
  defaults.tied_head = true;
  auto spec = llama_like_spec(reader, "ernie4_5_moe", defaults);
  reader.expect_false({"use_bias"});   // transformers' class then has one on the head too
  ExpertsSpec experts;
  experts.router = read_router(reader, {"moe_num_experts", "num_experts"}, 64, 6, "moe_k");
  set_router(experts.router);
  experts.router.smallest_sum = reader.float_or("moe_norm_min", 1e-12);
  experts.width = reader.int_or("moe_intermediate_size", 1536);
  experts.shared_width = experts.width * reader.int_or("moe_num_shared_experts", 2);
  experts.has_balancing_loss = true;
  const auto dense = read_layers(reader, static_cast<int64_t>(spec.layers.size()));
  if (reader.string_or("moe_gate", "topk") != "topk") reader.wrong("moe_gate", "topk");
  reader.ignore({"moe_capacity", "moe_use_aux_free", "moe_gate_act", "num_nextn_predict_layers"});   // of training the router; layers that are skipped
  reader.finish();
  set_experts(spec, experts, dense);
  spec.ropes[0].neighbouring_pairs = true;
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  auto spec = llama_like_spec(file, "ernie4_5_moe");
  auto experts = experts_from_gguf(file);
  set_router(experts.router);
  experts.has_balancing_loss = true;
  set_experts(spec, experts, dense_layers_of(file, spec));
  spec.ropes[0].neighbouring_pairs = true;
  return spec;
}

WeightMap weights(const DecoderSpec& spec) {
  auto map = weight_map_of(spec, llama_names_with({{"router.selection_bias", {"mlp.moe_statics.e_score_correction_bias", "exp_probs_b.bias"}}}));
  for_part(map, "router", [&](WeightRule& rule) {
    if (rule.ours.ends_with("selection_bias")) rule.hub_form.whole = {1, rule.shape[0]};
  });
  map.skipped = {"model.mtp_*", "mtp_*"};   // layers that predict further tokens
  return map;
}

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  const auto& experts = *spec.experts();
  std::vector<int64_t> with_experts;
  for (int64_t layer = 0; layer < static_cast<int64_t>(spec.layers.size()); ++layer) {
    if (spec.layers[static_cast<size_t>(layer)].experts()) with_experts.push_back(layer);
  }
  config["use_bias"] = false;
  config["moe_num_experts"] = experts.router.num_experts;
  config["moe_k"] = experts.router.experts_per_token;
  config["moe_intermediate_size"] = experts.width;
  config["moe_num_shared_experts"] = experts.shared_width / experts.width;
  config["moe_layer_start_index"] = with_experts.front();
  config["moe_layer_end_index"] = with_experts.back();
  config["moe_layer_interval"] = with_experts.size() > 1 ? with_experts[1] - with_experts[0] : 1;
  config["moe_norm_min"] = experts.router.smallest_sum;
}

void add_gguf(const DecoderSpec& spec, GgufKeys& keys) {
  const auto leading = static_cast<int64_t>(dense_layers(spec).size());
  for (int64_t layer = 0; layer < leading; ++layer) {
    if (spec.layers[static_cast<size_t>(layer)].experts()) refuse(keys, "experts in all layers behind the first dense ones");
  }
  write_experts(spec, keys);
  keys.u32("leading_dense_block_count", leading);
  keys.u32("interleave_moe_layer_step", 1);
}

}  // namespace ernie4_5_moe

Family ernie4_5_moe_family() {
  using namespace ernie4_5_moe;
  return {"ernie4_5_moe", "Ernie4_5_MoeForCausalLM", "ernie4_5-moe", from_config, from_gguf, weights, add_config, add_gguf};
}

}  // namespace graft
