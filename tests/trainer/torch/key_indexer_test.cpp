// DeepSeek sparse attention in a decoder: what it costs, what layers hand on, both paths. What it computes: tests/conformance; caches, packing, recomputation: the
// tests of every family.
#include "trainer/models/key_indexer.h"

#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "kernels/common/operator_path.h"
#include "tests/support/error_of.h"
#include "tests/support/relative_error.h"
#include "tests/trainer/torch/generation_tiny_model.h"

namespace graft {
namespace {

constexpr int32_t kSeen = 9;   // index_topk of the tiny models

Batch batch_of(const std::vector<int32_t>& lengths) {
  Batch batch;
  for (const auto length : lengths) {
    std::vector<int32_t> tokens = {7, 3, 90, 41, 5};   // documents begin alike
    for (int32_t i = 0; i < length - 5; ++i) tokens.push_back((length * 37 + i * i * 11 + 1) % 250);
    batch.add_document(tokens);
  }
  return batch;
}

// Layer norms while it lives: in these models the indexer's key has the only one.
class LayerNorms {
 public:
  LayerNorms() : handle_(at::addGlobalCallback(at::RecordFunctionCallback(count).scopes({at::RecordScope::FUNCTION}))) { number() = 0; }
  ~LayerNorms() { at::removeCallback(handle_); }
  static int& number() {
    static int number = 0;
    return number;
  }

 private:
  static std::unique_ptr<at::ObserverContext> count(const at::RecordFunction& function) {
    if (std::string(function.name()) == "aten::layer_norm") ++number();
    return nullptr;
  }
  at::CallbackHandle handle_;
};

class KeyIndexerOf : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Families, KeyIndexerOf, testing::Values("deepseek_v32", "glm_moe_dsa"));

TEST_P(KeyIndexerOf, IsNotComputedWhereEveryTokenSeesAllKeys) {
  const test::TinyModel whole(GetParam()), damaged(GetParam(), 258, {".indexer.", NAN});
  const auto short_documents = batch_of({kSeen, 6, kSeen}), one_longer = batch_of({kSeen, kSeen + 7});
  EXPECT_TRUE(at::equal(whole.decoder->forward(short_documents), damaged.decoder->forward(short_documents)));
  EXPECT_FALSE(at::equal(whole.decoder->forward(one_longer), damaged.decoder->forward(one_longer)));
  const LayerNorms norms;
  whole.decoder->forward(short_documents);
  EXPECT_EQ(LayerNorms::number(), 0);
  whole.decoder->forward(one_longer);
  EXPECT_EQ(LayerNorms::number(), 2) << "two layers have an indexer";
}

TEST_P(KeyIndexerOf, HasTheSameKeysOnTheReferencePath) {
  const test::TinyModel model(GetParam());
  const auto batch = share_prefix(batch_of({30, 6, 17}));
  EXPECT_EQ(batch.shared_prefix, 5);
  const auto fast = model.decoder->forward(batch);
  set_operator_path(OperatorPath::kReference);
  const auto reference = model.decoder->forward(batch);
  set_operator_path(OperatorPath::kFast);
  EXPECT_LE(relative_error(reference, fast), 1e-5);
}

TEST_P(KeyIndexerOf, RunsInBfloat16) {
  const test::TinyModel model(GetParam());
  const auto batch = batch_of({30, 6, 17});
  const auto exact = model.decoder->forward(batch);
  model.decoder->set_compute(ComputeType::kBFloat16);
  EXPECT_LE(relative_error(model.decoder->forward(batch).to(at::kFloat), exact), 0.2);   // rounding moves a few keys over the border
}

TEST(LayerStream, CarriesSelectedKeysToLayersThatShareThem) {
  const test::TinyModel model("glm_moe_dsa");   // full, shared, full
  for (const int32_t length : {kSeen, 2 * kSeen}) {
    const auto batch = batch_of({length});
    const auto first = model.decoder->run_layer(0, {model.decoder->embed(batch), {}}, batch);
    EXPECT_EQ(first.selected_keys_NB.defined(), length > kSeen);
    const auto second = model.decoder->run_layer(1, first, batch);
    EXPECT_FALSE(second.selected_keys_NB.defined()) << "the third layer has an indexer of its own";
    const auto dense = model.decoder->run_layer(1, {first.x_NC, {}}, batch);
    EXPECT_EQ(at::equal(second.x_NC, dense.x_NC), length == kSeen);
  }
}

nlohmann::ordered_json changed(const char* model_type, const nlohmann::ordered_json& changes) {
  auto config = test::tiny_config(model_type);
  config.update(changes);
  return config;
}

DecoderSpec spec_of(const nlohmann::ordered_json& config) { return family_of_model_type(config["model_type"]).spec_from_config(config); }

TEST(IndexedFamilies, NameWhatContradictsInAConfiguration) {
  const auto error = [](const char* model_type, const nlohmann::ordered_json& changes) { return test::error_of([&] { check_spec(spec_of(changed(model_type, changes))); }); };
  EXPECT_EQ(error("glm_moe_dsa", nlohmann::ordered_json::object()), "no error");
  const auto wrong = error("glm_moe_dsa", {{"indexer_types", {"shared", "full", "full"}}, {"index_head_dim", 8}, {"index_topk", 0}, {"q_lora_rank", nullptr},
                                           {"indexer_rope_interleave", false}});
  for (const char* key : {"indexer_types", "index_head_dim", "index_topk", "q_lora_rank", "indexer_rope_interleave"}) EXPECT_THAT(wrong, testing::HasSubstr(key));
  EXPECT_THAT(error("deepseek_v32", {{"indexer_types", {"full", "shared", "full"}}}), testing::HasSubstr("unknown keys: indexer_types"));
  EXPECT_THAT(error("deepseek_v32", {{"indexer_rope_interleave", true}}), testing::HasSubstr("expected false"));
}

TEST(IndexedFamilies, RefuseInGgufWhatLlamaCppComputesOtherwise) {
  EXPECT_EQ(test::error_of([] { gguf_hyperparameters(spec_of(changed("deepseek_v32", {{"index_topk", 7}}))); }), "no error");
  EXPECT_THAT(test::error_of([] { gguf_hyperparameters(spec_of(changed("deepseek_v32", {{"index_head_dim", 128}}))); }), testing::HasSubstr("index_head_dim"));
  const nlohmann::ordered_json yarn = {{"rope_scaling", {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 8}, {"mscale", 1.0}, {"mscale_all_dim", 1.0}}}};
  EXPECT_THAT(test::error_of([&] { gguf_hyperparameters(spec_of(changed("glm_moe_dsa", yarn))); }), testing::HasSubstr("no scaled rotary embedding"));
}

}  // namespace
}  // namespace graft
