// Names and layouts of checkpoints to ours and back, without any model.
#include "checkpoints/weight_map.h"

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
  explicit NamedTensors(std::vector<std::pair<std::string, std::vector<int64_t>>> tensors) {
    for (auto& [name, shape] : tensors) tensors_.push_back({name, TensorType::kF32, shape, {}, "model.safetensors"});
    index_tensors();
  }
};

WeightRule rule(std::vector<int64_t> shape, StoredForm hub, StoredForm gguf = {}) {
  return {"layers.0.part.weight", "model.layers.0.part.weight", "blk.0.part.weight", std::move(shape), hub, gguf};
}

TEST(WeightMap, RowsOfQueryKeyAndValueByHead) {
  const auto bloom = rule({6, 4}, {StoredForm::Rows::kQkvByHead, 2});   // two heads of one element: q0 k0 v0 q1 k1 v1
  EXPECT_THAT(stored_row_of_ours(bloom, NameColumn::kHub), ElementsAre(0, 3, 1, 4, 2, 5));
  EXPECT_TRUE(stored_row_of_ours(bloom, NameColumn::kGguf).empty());
}

TEST(WeightMap, RowsOfRotaryPairs) {
  const auto llama = rule({8, 4}, {}, {StoredForm::Rows::kRotaryPairs, 2});   // a head is x0 x1 y0 y1 here and x0 y0 x1 y1 there
  EXPECT_THAT(stored_row_of_ours(llama, NameColumn::kGguf), ElementsAre(0, 2, 1, 3, 4, 6, 5, 7));
}

TEST(WeightMap, EveryOrderHasItsInverse) {
  for (const auto rows : {StoredForm::Rows::kQkvByHead, StoredForm::Rows::kRotaryPairs}) {
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
