// mixtral: Mistral whose layers all have experts, weighted by a softmax over the chosen ones.
#include "trainer/models/families/expert_layers.h"
#include "trainer/models/families/llama_like.h"

namespace graft {
namespace mixtral {

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "mixtral");
  auto spec = llama_like_spec(reader, "mixtral");
  const int64_t window = reader.int_or("sliding_window", 0);
  for (auto& layer : spec.layers) layer.attention().window = window;
  ExpertsSpec experts;
  experts.router = read_router(reader, {"num_local_experts"}, 8, 2);
  experts.router.renormalise = true;
  experts.width = spec.dense_width();
  experts.has_balancing_loss = true;
  reader.ignore({"router_jitter_noise"});   // of training the router, which stays frozen
  reader.finish();
  set_experts(spec, experts, {});
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  auto spec = llama_like_spec(file, "mixtral");
  auto experts = experts_from_gguf(file);
  experts.router.renormalise = true;
  experts.width = spec.dense_width();
  experts.has_balancing_loss = true;
  set_experts(spec, experts, {});
  return spec;
}

WeightMap weights(const DecoderSpec& spec) {
  auto map = weight_map_of(spec, llama_names_with({{"router", {"block_sparse_moe.gate", "ffn_gate_inp"}},
                                                   {"experts.gate", {"block_sparse_moe.experts.*.w1", "ffn_gate_exps"}},
                                                   {"experts.up", {"block_sparse_moe.experts.*.w3", "ffn_up_exps"}},
                                                   {"experts.down", {"block_sparse_moe.experts.*.w2", "ffn_down_exps"}}}));
  map.hub_aliases = {{".block_sparse_moe.", ".mlp."}};   // beside stacked experts
  set_gguf_rotary_pairs(spec, map);
  return map;
}

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  const auto& experts = *spec.experts();
  const auto window = spec.layers[0].attention().window;
  config["num_local_experts"] = experts.router.num_experts;
  config["num_experts_per_tok"] = experts.router.experts_per_token;
  config["sliding_window"] = window > 0 ? nlohmann::ordered_json(window) : nlohmann::ordered_json(nullptr);
}

void add_gguf(const DecoderSpec& spec, GgufKeys& keys) {
  limit_context_to_window(spec, keys);
  write_experts(spec, keys);
  keys.erase("expert_feed_forward_length");
}

}  // namespace mixtral

Family mixtral_family() {
  using namespace mixtral;
  return {"mixtral", "MixtralForCausalLM", "llama", from_config, from_gguf, weights, add_config, add_gguf, "blk.0.ffn_gate_inp.weight"};
}

}  // namespace graft
