// Names and layouts of checkpoints to ours and back, without any model.
#include "checkpoints/weight_map.h"

#include <cstring>
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/common/error.h"

namespace graft {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class NamedTensors : public TensorSource {
 public:
  explicit NamedTensors(std::vector<std::pair<std::string, std::vector<int64_t>>> tensors, std::span<const float> values = {}) {
    for (auto& [name, shape] : tensors) tensors_.push_back({name, TensorType::kF32, shape, std::as_bytes(values), "model.safetensors"});
    index_tensors();
  }
};

WeightRule rule(std::vector<int64_t> shape, StoredForm hub, StoredForm gguf = {}) {
  return {"layers.0.part.weight", "model.layers.0.part.weight", "blk.0.part.weight", std::move(shape), hub, gguf};
}

TEST(WeightMap, RowsOfQueryKeyAndValueByHead) {
  const auto bloom = rule({6, 4}, {StoredForm::Rows::kPartsByHead, 2});   // two heads of one element: q0 k0 v0 q1 k1 v1
  EXPECT_THAT(stored_row_of_ours(bloom, NameColumn::kHub), ElementsAre(0, 3, 1, 4, 2, 5));
  EXPECT_TRUE(stored_row_of_ours(bloom, NameColumn::kGguf).empty());
}

TEST(WeightMap, RowsOfRotaryPairs) {
  const auto llama = rule({8, 4}, {}, {StoredForm::Rows::kRotaryPairs, 2});   // a head is x0 x1 y0 y1 here and x0 y0 x1 y1 there
  EXPECT_THAT(stored_row_of_ours(llama, NameColumn::kGguf), ElementsAre(0, 2, 1, 3, 4, 6, 5, 7));
}

TEST(WeightMap, EveryOrderHasItsInverse) {
  for (const auto rows : {StoredForm::Rows::kPartsByHead, StoredForm::Rows::kRotaryPairs}) {
    const auto moved = rule({36, 4}, {rows, 3});
    const auto there = stored_row_of_ours(moved, NameColumn::kHub), back = our_row_of_stored(moved, NameColumn::kHub);
    for (int64_t row = 0; row < 36; ++row) EXPECT_EQ(there.at(back.at(row)), row);
  }
}

TEST(WeightMap, TransposedTensorsAreExpectedSo) {
  StoredForm transposed;
  transposed.transposed = true;
  WeightMap map;
  map.rules = {rule({6, 4}, transposed)};
  EXPECT_EQ(bind_weights(map, NameColumn::kHub, NamedTensors({{"model.layers.0.part.weight", {4, 6}}})).size(), 1u);
  EXPECT_EQ(bind_weights(map, NameColumn::kGguf, NamedTensors({{"blk.0.part.weight", {6, 4}}})).size(), 1u);
  EXPECT_THROW(bind_weights(map, NameColumn::kHub, NamedTensors({{"model.layers.0.part.weight", {6, 4}}})), UserError);
}

TEST(WeightMap, OtherPrefixesAreFoundAndOtherPartsSkipped) {
  WeightMap map;
  map.rules = {rule({6, 4}, {})};
  map.hub_aliases = {{"model.", "language_model.model."}};
  map.skipped = {"vision_tower.*"};
  map.ignored = {"*rotary_emb.inv_freq"};
  const NamedTensors source({{"vision_tower.a", {1}}, {"language_model.model.layers.0.part.weight", {6, 4}}, {"x.rotary_emb.inv_freq", {3}}, {"vision_tower.b", {2}}});
  EXPECT_EQ(bind_weights(map, NameColumn::kHub, source)[0].tensor->name, "language_model.model.layers.0.part.weight");
  EXPECT_THAT(skipped_tensors(map, source), ElementsAre("vision_tower.a", "vision_tower.b"));
}

// Two experts of [2, 3]: one by one on the hub or stacked there, stacked in GGUF.
TEST(WeightMap, ExpertsAreSlicesOfStackedTensors) {
  WeightMap map;
  for (int64_t expert = 0; expert < 2; ++expert) {
    WeightRule rule;
    rule.ours = "e" + std::to_string(expert) + ".weight";
    rule.hub = "model.experts." + std::to_string(expert) + ".up.weight";
    rule.gguf = "up_exps.weight";
    rule.shape = {2, 3};
    rule.gguf_form.whole = {2, 2, 3};
    rule.gguf_form.first = expert * 6;
    rule.hub_stacked = "model.experts.gate_up";
    rule.hub_stacked_form.whole = {2, 4, 3};
    rule.hub_stacked_form.first = expert * 12 + 6;
    map.rules.push_back(rule);
  }
  EXPECT_EQ(map.rules[1].module_name(), "model.experts.gate_up");
  EXPECT_THAT(map.rules[1].stored_shape(NameColumn::kGguf), ElementsAre(2, 2, 3));
  std::vector<float> values(24);
  std::iota(values.begin(), values.end(), 0.0f);
  const auto first_value = [&](NameColumn column, const NamedTensors& source, size_t index) {
    const auto bound = bind_weights(map, column, source);
    EXPECT_THAT(bound.at(index).tensor->shape, ElementsAre(2, 3));
    EXPECT_EQ(bound.at(index).tensor->bytes.size(), 24u);
    float value = 0;
    std::memcpy(&value, bound.at(index).tensor->bytes.data(), sizeof(value));
    return value;
  };
  const NamedTensors gguf({{"up_exps.weight", {2, 2, 3}}}, values), stacked({{"model.experts.gate_up", {2, 4, 3}}}, values);
  EXPECT_EQ(first_value(NameColumn::kGguf, gguf, 0), 0);
  EXPECT_EQ(first_value(NameColumn::kGguf, gguf, 1), 6);
  EXPECT_EQ(first_value(NameColumn::kHub, stacked, 0), 6);
  EXPECT_EQ(first_value(NameColumn::kHub, stacked, 1), 18);
  const NamedTensors single({{"model.experts.0.up.weight", {2, 3}}, {"model.experts.1.up.weight", {2, 3}}}, values);
  EXPECT_EQ(bind_weights(map, NameColumn::kHub, single)[1].tensor->name, "model.experts.1.up.weight");
  try {
    bind_weights(map, NameColumn::kGguf, NamedTensors({{"up_exps.weight", {3, 2, 3}}}));
    FAIL();
  } catch (const UserError& error) {   // once, not for each expert
    EXPECT_THAT(error.what(), HasSubstr("misshaped: up_exps.weight is [3, 2, 3], expected [2, 2, 3]\n("));
  }
}

TEST(WeightMap, OneErrorListsEverything) {
  WeightMap map;
  map.rules = {rule({6, 4}, {}), {"b", "model.b.weight", "b", {2}, {}, {}}};
  try {
    bind_weights(map, NameColumn::kHub, NamedTensors({{"model.b.weight", {3}}, {"c", {1}}, {"d", {1}}}));
    FAIL();
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("missing: model.layers.0.part.weight"));
    EXPECT_THAT(error.what(), HasSubstr("misshaped: model.b.weight is [3], expected [2]"));
    EXPECT_THAT(error.what(), HasSubstr("surplus: c, d"));
  }
}

}  // namespace
}  // namespace graft
