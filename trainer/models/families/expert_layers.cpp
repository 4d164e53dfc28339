#include "trainer/models/families/expert_layers.h"

#include <algorithm>

#include <fmt/ranges.h>

#include "kernels/common/error.h"
#include "trainer/models/families/llama_like.h"

namespace graft {
namespace {

constexpr int64_t kMostExperts = 65536;
enum GatingFunction { kSoftmaxGating = 1, kSigmoidGating = 2, kSoftmaxOfChosenGating = 3 };   // llama.cpp's expert_gating_func

}  // namespace

RouterSpec read_router(ConfigReader& reader, std::initializer_list<const char*> count_keys, int64_t num_experts, int64_t experts_per_token, const char* chosen_key) {
  RouterSpec router;
  const char* present = nullptr;
  for (const auto* key : count_keys) {
    if (!present && reader.has(key)) present = key;
    else if (reader.has(key) && reader.at(key) != reader.at(present)) reader.wrong(key, fmt::format("what {} says", present));
  }
  if (!present) present = *count_keys.begin();
  router.num_experts = num_experts > 0 && !reader.has(present) ? num_experts : reader.need_int(present, 1, kMostExperts);
  router.experts_per_token = experts_per_token > 0 && !reader.has(chosen_key) ? experts_per_token : reader.need_int(chosen_key, 1, kMostExperts);
  if (router.experts_per_token > router.num_experts) {
    reader.wrong(chosen_key, fmt::format("at most {}, the number of experts", router.num_experts));
    router.experts_per_token = 1;
  }
  reader.ignore({"router_aux_loss_coef", "output_router_logits"});
  return router;
}

void read_groups(ConfigReader& reader, RouterSpec& router) {
  router.num_groups = std::max<int64_t>(1, reader.int_or("n_group", 1));
  router.groups_per_token = std::max<int64_t>(1, reader.int_or("topk_group", 1));
  const bool fit = router.num_experts % router.num_groups == 0 && router.groups_per_token <= router.num_groups &&
                   router.experts_per_token <= router.num_experts / router.num_groups * router.groups_per_token;
  if (fit) return;
  reader.wrong("n_group", "a divisor of the number of experts, with topk_group of them holding at least num_experts_per_tok");
  router.num_groups = router.groups_per_token = 1;
}

ExpertsSpec read_qwen_experts(ConfigReader& reader, bool renormalise) {
  ExpertsSpec experts;
  experts.router = read_router(reader, {"num_experts", "num_local_experts"});
  experts.router.renormalise = reader.bool_or("norm_topk_prob", renormalise);
  experts.width = reader.need_int("moe_intermediate_size", 1, kLargestCount);
  experts.has_balancing_loss = true;
  return experts;
}

void add_qwen_experts(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  const auto& experts = *spec.experts();
  config["num_experts"] = experts.router.num_experts;
  config["num_experts_per_tok"] = experts.router.experts_per_token;
  config["moe_intermediate_size"] = experts.width;
  config["norm_topk_prob"] = experts.router.renormalise;
  config["decoder_sparse_step"] = 1;
  config["mlp_only_layers"] = dense_layers(spec);
}

DenseLayers read_qwen_dense_layers(ConfigReader& reader) {
  DenseLayers dense;
  const int64_t layers = reader.need_int("num_hidden_layers"), step = reader.int_or("decoder_sparse_step", 1);
  for (int64_t layer = 0; layer < layers; ++layer) {
    if (step < 1 || (layer + 1) % step != 0) dense.insert(layer);
  }
  if (!reader.has("mlp_only_layers")) {
    reader.ignore({"mlp_only_layers"});
    return dense;
  }
  for (const auto& layer : reader.at("mlp_only_layers")) {
    if (layer.is_number_integer()) dense.insert(layer.get<int64_t>());
    else reader.wrong("mlp_only_layers", "a list of layers");
  }
  return dense;
}

std::vector<int64_t> dense_layers(const DecoderSpec& spec) {
  std::vector<int64_t> dense;
  for (size_t layer = 0; layer < spec.layers.size(); ++layer) {
    if (!spec.layers[layer].experts()) dense.push_back(static_cast<int64_t>(layer));
  }
  return dense;
}

void set_experts(DecoderSpec& spec, const ExpertsSpec& experts, const DenseLayers& dense) {
  for (size_t layer = 0; layer < spec.layers.size(); ++layer) {
    if (!dense.contains(static_cast<int64_t>(layer))) spec.layers[layer].channel = experts;
  }
}

ExpertsSpec experts_from_gguf(const GgufFile& file) {
  const GgufReader reader(file);
  ExpertsSpec experts;
  auto& router = experts.router;
  router.num_experts = reader.need_int("expert_count", kMostExperts);
  router.experts_per_token = reader.need_int("expert_used_count", router.num_experts);
  experts.width = reader.int_or("expert_feed_forward_length", 0);
  experts.shared_width = reader.int_or("expert_shared_feed_forward_length", 0);
  router.num_groups = std::max<int64_t>(1, reader.int_or("expert_group_count", 1));
  router.groups_per_token = std::max<int64_t>(1, reader.int_or("expert_group_used_count", 1));
  const auto scale = reader.float_or("expert_weights_scale", 0);   // llama.cpp: 0 is none
  router.scale = scale == 0 ? 1 : scale;
  const auto gating = reader.int_or("expert_gating_func", kSoftmaxGating);
  router.score = gating == kSigmoidGating           ? RouterSpec::Score::kSigmoid
                 : gating == kSoftmaxOfChosenGating ? RouterSpec::Score::kSoftmaxOfChosen
                                                    : RouterSpec::Score::kSoftmax;
  if (gating < kSoftmaxGating || gating > kSoftmaxOfChosenGating) {
    fail("models", "expected expert_gating_func from 1 to 3, got {} ({}) — this router is not supported", gating, reader.name());
  }
  return experts;
}

DenseLayers dense_layers_of(const GgufFile& file, const DecoderSpec& spec) {
  DenseLayers dense;
  for (size_t layer = 0; layer < spec.layers.size(); ++layer) {
    if (!has_tensor(file, fmt::format("blk.{}.ffn_gate_inp.weight", layer).c_str())) dense.insert(static_cast<int64_t>(layer));
  }
  return dense;
}

void write_experts(const DecoderSpec& spec, GgufKeys& keys) {
  const auto& experts = *spec.experts();
  keys.u32("expert_count", experts.router.num_experts);
  keys.u32("expert_used_count", experts.router.experts_per_token);
  keys.u32("expert_feed_forward_length", experts.width);
  if (experts.shared_width > 0) keys.u32("expert_shared_feed_forward_length", experts.shared_width);
}

void write_gating(const DecoderSpec& spec, GgufKeys& keys) {
  const auto score = spec.experts()->router.score;
  keys.u32("expert_gating_func", score == RouterSpec::Score::kSigmoid ? kSigmoidGating : score == RouterSpec::Score::kSoftmax ? kSoftmaxGating : kSoftmaxOfChosenGating);
}

void refuse(const GgufKeys& keys, const char* expected) {
  fail("models", "expected {}, as llama.cpp computes {}, got something else — export safetensors or peft", expected, keys.architecture());
}

void refuse_dense_layers(const DecoderSpec& spec, const GgufKeys& keys) {
  const auto dense = dense_layers(spec);
  if (dense.empty()) return;
  fail("models", "expected experts in all layers, as llama.cpp computes {}, got none in layers {} — export safetensors or peft", keys.architecture(), fmt::join(dense, ", "));
}

void refuse_weights(const DecoderSpec& spec, const GgufKeys& keys, bool normalised) {
  if (spec.experts()->router.renormalise != normalised) return;
  fail("models", "expected norm_topk_prob {}, as llama.cpp computes {}, got {} — export safetensors or peft", !normalised, keys.architecture(), normalised);
}

void refuse_unequal_choices(const DecoderSpec& spec, const GgufKeys& keys) {
  const auto chosen = spec.experts()->router.experts_per_token;
  for (const auto& layer : spec.layers) {
    if (!layer.experts() || layer.experts()->router.experts_per_token == chosen) continue;
    fail("models", "expected as many experts a token in all layers, as llama.cpp computes {}, got {} and {} — export safetensors or peft", keys.architecture(), chosen,
         layer.experts()->router.experts_per_token);
  }
}

}  // namespace graft
