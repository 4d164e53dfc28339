// deepseek_v2: DeepSeek V2, V2.5, V2-Lite. Latent attention; softmax router, in V2 limited to groups by their best expert, shared experts, dense first layers.
#include "kernels/common/error.h"
#include "trainer/models/families/latent_layers.h"

namespace graft {
namespace deepseek_v2 {

void read_softmax_router(ConfigReader& reader, RouterSpec& router) {
  const auto method = reader.string_or("topk_method", "greedy");
  if (method == "group_limited_greedy") {
    read_groups(reader, router);
    router.group_score = RouterSpec::GroupScore::kBest;
  } else if (method != "greedy") {
    reader.wrong("topk_method", "greedy or group_limited_greedy");
  }
  if (reader.string_or("scoring_func", "softmax") != "softmax") reader.wrong("scoring_func", "softmax");
  reader.ignore({"n_group", "topk_group"});
  reader.expect_false({"norm_topk_prob"});   // transformers' class does not read it
}

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "deepseek_v2");
  LlamaDefaults defaults;
  defaults.own_ropes = true;
  auto spec = llama_like_spec(reader, "deepseek_v2", defaults);
  read_latent_attention(reader, spec, true);
  reader.expect_false({"mlp_bias"});
  auto experts = read_deepseek_experts(reader);
  read_softmax_router(reader, experts.router);
  const auto dense = read_first_dense_layers(reader);
  reader.finish();
  set_experts(spec, experts, dense);
  return spec;
}

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  const auto& router = spec.experts()->router;
  // As llama.cpp computes such a file, and transformers does not.
  if (router.renormalise || (router.num_groups > 1 && router.group_score != RouterSpec::GroupScore::kBest)) {
    fail("models", "expected a softmax router without renormalised weights and without groups by their two best, as transformers computes deepseek_v2, got another "
         "— export gguf or peft");
  }
  write_latent_config(spec, config);
  config["scoring_func"] = "softmax";
  config["topk_method"] = router.num_groups > 1 ? "group_limited_greedy" : "greedy";
}

}  // namespace deepseek_v2

Family deepseek_v2_family() {
  using namespace deepseek_v2;
  return {"deepseek_v2", "DeepseekV2ForCausalLM", "deepseek2", from_config, latent_spec_from_gguf, latent_weights, add_config, write_latent_gguf};
}

}  // namespace graft
