#include "trainer/recipe/recipe_differences.h"

#include <gtest/gtest.h>

#include "trainer/recipe/recipe.h"

namespace graft {
namespace {

nlohmann::ordered_json resolved(const std::vector<std::string>& overrides) {
  return resolved_json(parse_recipe("model: {base: m}\ndata: {train: [{path: a.jsonl, format: messages}]}\nrun: {out: o}\n", "r", "", overrides));
}
using Lines = std::vector<std::string>;

TEST(RecipeDifferences, lists_keys_with_both_values) {
  EXPECT_EQ(recipe_differences(resolved({}), resolved({})), Lines{});
  EXPECT_EQ(recipe_differences(resolved({}), resolved({"optimizer.learning_rate=1e-3", "data.train.1={path: b.jsonl, format: messages}"})),
            (Lines{R"(data.train.1: (none) -> {"path":"b.jsonl","format":"messages","weight":1.0})",
                   R"(optimizer.learning_rate: "auto" -> 0.001)"}));
}

TEST(RecipeDifferences, keep_and_export_may_change) {
  EXPECT_EQ(resume_conflicts(resolved({}), resolved({"run.keep.last=9", "export=[peft]", "run.out=elsewhere"})), Lines{});
  EXPECT_EQ(resume_conflicts(resolved({}), resolved({"run.seed=1", "export=[peft]"})), Lines{"run.seed: 0 -> 1"});
  EXPECT_EQ(resume_conflicts(resolved({}), resolved({"adapter.quantization_aware=gguf:Q4_1"})), Lines{R"(adapter.quantization_aware: "none" -> "gguf:Q4_1")"});
}

TEST(RecipeDifferences, only_a_constant_schedule_may_grow) {
  const auto schedule = [](const std::string& text) { return resolved({"schedule=" + text}); };
  EXPECT_EQ(resume_conflicts(schedule("{steps: 5, shape: constant, warmup: 2}"), schedule("{steps: 9, shape: constant, warmup: 2}")), Lines{});
  EXPECT_EQ(resume_conflicts(schedule("{epochs: 1, shape: constant, warmup: 0}"), schedule("{epochs: 2, shape: constant, warmup: 0}")), Lines{});
  EXPECT_EQ(resume_conflicts(schedule("{steps: 9, shape: constant, warmup: 2}"), schedule("{steps: 5, shape: constant, warmup: 2}")),
            Lines{"schedule.steps: 9 -> 5"});
  EXPECT_EQ(resume_conflicts(schedule("{steps: 5, shape: cosine}"), schedule("{steps: 9, shape: cosine}")), Lines{"schedule.steps: 5 -> 9"});
  // A warm-up of 3 % of the steps would have been longer.
  EXPECT_EQ(resume_conflicts(schedule("{steps: 5, shape: constant}"), schedule("{steps: 9, shape: constant}")), Lines{"schedule.steps: 5 -> 9"});
}

}  // namespace
}  // namespace graft
