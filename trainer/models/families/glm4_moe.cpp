// glm4_moe: GLM-4.5 to 4.7 and Air. Half of a head turns; sigmoid router with a selection bias, a shared expert, dense first layers.
#include <fmt/format.h>

#include "trainer/models/families/expert_layers.h"
#include "trainer/models/families/llama_like.h"

namespace graft {
namespace glm4_moe {

void set_attention(DecoderSpec& spec, bool biases, bool head_norms) {
  for (auto& layer : spec.layers) {
    layer.attention().input_bias = biases;
    if (head_norms) layer.attention().head_norm = layer.mixer_norm;
  }
}

DenseLayers first_layers(int64_t count) {
  DenseLayers dense;
  for (int64_t layer = 0; layer < count; ++layer) dense.insert(layer);
  return dense;
}

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "glm4_moe");
  LlamaDefaults defaults;
  defaults.rope.partial_rotary_factor = 0.5;
  auto spec = llama_like_spec(reader, "glm4_moe", defaults);
  const bool biases = reader.bool_or("attention_bias", false), head_norms = reader.bool_or("use_qk_norm", false);
  ExpertsSpec experts;
  experts.router = read_router(reader, {"n_routed_experts", "num_local_experts"});
  read_groups(reader, experts.router);
  experts.router.score = RouterSpec::Score::kSigmoid;
  experts.router.selection_bias = true;
  experts.router.renormalise = reader.bool_or("norm_topk_prob", true);
  experts.router.smallest_sum = 1e-20;
  experts.router.scale = reader.float_or("routed_scaling_factor", 1);
  experts.width = reader.need_int("moe_intermediate_size", 1, kLargestCount);
  experts.shared_width = experts.width * reader.int_or("n_shared_experts", 1);
  const auto dense = first_layers(reader.int_or("first_k_dense_replace", 1));
  reader.ignore({"num_nextn_predict_layers"});   // layers behind the last, which predict further tokens: skipped
  reader.finish();
  set_experts(spec, experts, dense);
  set_attention(spec, biases, head_norms);
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  auto spec = llama_like_spec(file, "glm4_moe");
  const GgufReader reader(file);
  auto experts = experts_from_gguf(file);
  experts.router.score = RouterSpec::Score::kSigmoid;
  experts.router.selection_bias = true;
  experts.router.renormalise = reader.bool_or("expert_weights_norm", false);
  experts.router.smallest_sum = 1e-20;
  experts.shared_width = experts.width * reader.int_or("expert_shared_count", 1);
  set_experts(spec, experts, first_layers(reader.int_or("leading_dense_block_count", 0)));
  set_attention(spec, has_tensor(file, "blk.0.attn_q.bias"), has_tensor(file, "blk.0.attn_q_norm.weight"));
  return spec;
}

WeightMap weights(const DecoderSpec& spec) {
  auto map = weight_map_of(spec, llama_names_with({{"channel_norm", {"post_attention_layernorm", "post_attention_norm"}}}));
  map.skipped = {fmt::format("model.layers.{}.*", spec.layers.size()), fmt::format("blk.{}.*", spec.layers.size())};
  return map;
}

int64_t num_dense(const DecoderSpec& spec) { return static_cast<int64_t>(dense_layers(spec).size()); }

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  const auto& experts = *spec.experts();
  const auto& router = experts.router;
  config["attention_bias"] = spec.layers[0].attention().input_bias;
  config["use_qk_norm"] = spec.layers[0].attention().head_norm.has_value();
  config["n_routed_experts"] = router.num_experts;
  config["num_experts_per_tok"] = router.experts_per_token;
  config["n_group"] = router.num_groups;
  config["topk_group"] = router.groups_per_token;
  config["norm_topk_prob"] = router.renormalise;
  config["routed_scaling_factor"] = router.scale;
  config["moe_intermediate_size"] = experts.width;
  config["n_shared_experts"] = experts.shared_width / experts.width;
  config["first_k_dense_replace"] = num_dense(spec);
  config["num_nextn_predict_layers"] = 0;
}

void add_gguf(const DecoderSpec& spec, GgufKeys& keys) {
  const auto& experts = *spec.experts();
  write_experts(spec, keys);
  keys.erase("expert_shared_feed_forward_length");
  keys.u32("expert_shared_count", experts.shared_width / experts.width);
  keys.u32("leading_dense_block_count", num_dense(spec));
  keys.u32("expert_group_count", experts.router.num_groups);
  keys.u32("expert_group_used_count", experts.router.groups_per_token);
  keys.f32("expert_weights_scale", experts.router.scale);
  keys.boolean("expert_weights_norm", experts.router.renormalise);
  write_gating(spec, keys);
}

}  // namespace glm4_moe

Family glm4_moe_family() {
  using namespace glm4_moe;
  return {"glm4_moe", "Glm4MoeForCausalLM", "glm4moe", from_config, from_gguf, weights, add_config, add_gguf};
}

}  // namespace graft
