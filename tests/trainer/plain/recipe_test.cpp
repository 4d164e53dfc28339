// Recipes: what is read, every kind of problem with its place and advice, overrides, printing, paths.
#include "trainer/recipe/recipe.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "tests/support/error_of.h"
#include "trainer/recipe/learning_rate.h"

namespace graft {
namespace {

using testing::HasSubstr;

const std::string kSmall =
    "model: {base: m.gguf}\n"
    "data:\n"
    "  train: [{path: rows.jsonl, format: messages}]\n"
    "run: {out: runs/a}\n";

Recipe parse(const std::string& text, const std::vector<std::string>& overrides = {}) { return parse_recipe(text, "r.yaml", "", overrides); }

std::string error_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return test::error_of([&] { parse(text, overrides); });
}

std::filesystem::path source_folder() {
  const char* folder = std::getenv("GRAFT_SOURCE_DIR");
  return folder ? std::filesystem::path(folder) : std::filesystem::path(__FILE__).parent_path() / "../../..";
}

TEST(Recipe, defaults_are_the_structs) {
  const Recipe recipe = parse(kSmall);
  EXPECT_EQ(recipe.model.base, "m.gguf");
  EXPECT_EQ(recipe.adapter.rank, 32);
  EXPECT_EQ(recipe.adapter.targets, std::vector<std::string>{"all-linear"});
  EXPECT_FALSE(recipe.optimizer.learning_rate.has_value());
  EXPECT_EQ(recipe.run.threads, 0);
  EXPECT_EQ(recipe.run.out, "runs/a");
  EXPECT_TRUE(recipe.exports.empty());
}

TEST(Recipe, reads_every_form) {
  const Recipe recipe = parse(kSmall +
                              "adapter: {rank: 8, alpha: 16, scaling: rslora, targets: [q_proj, '*.mlp.*'], from: old/adapter}\n"
                              "optimizer: {learning_rate: 2e-4, clip: 0, weight_decay: .01}\n"
                              "schedule: {steps: 20, shape: constant, warmup: 3}\n"
                              "export:\n  - gguf:F16\n  - {format: 'gguf:Q8_0', verify: {max_mean_kl: 1e-2, min_share_of_gain: 0.9}}\n  - {format: 'gguf:Q3_K_M', importance: training_rows}\n  - {format: 'gguf:IQ4_XS', importance: calibration.gguf}\n  - {format: peft, verify: none}\n"
                              "report: {examples: true}\n",
                              {"run.threads=2", "run.keep.last=5", "run.early_stopping.patience=3", "data.validation_fraction=0.1",
                               "data.template_date=2026-02-28", "data.template_arguments.enable_thinking=false", "run.device=cuda:1"});
  EXPECT_EQ(recipe.adapter.targets, (std::vector<std::string>{"q_proj", "*.mlp.*"}));
  EXPECT_EQ(*recipe.optimizer.learning_rate, 2e-4);
  EXPECT_EQ(recipe.optimizer.weight_decay, .01);
  EXPECT_EQ(*recipe.schedule.steps, 20);
  EXPECT_EQ(recipe.run.threads, 2);
  EXPECT_EQ(recipe.run.keep_last, 5);
  EXPECT_EQ(recipe.run.keep_best, 1);
  EXPECT_EQ(*recipe.run.early_stopping_patience, 3);
  EXPECT_EQ(recipe.data.template_arguments.dump(), R"({"enable_thinking":false})");
  ASSERT_EQ(recipe.exports.size(), 5);
  EXPECT_EQ(recipe.exports[0].format, "gguf:F16");
  EXPECT_EQ(recipe.exports[0].max_mean_kl, 0.002);
  EXPECT_EQ(recipe.exports[1].max_mean_kl, 0.01);
  EXPECT_FALSE(recipe.exports[0].min_share_of_gain);
  EXPECT_EQ(recipe.exports[1].min_share_of_gain, 0.9);
  EXPECT_EQ(recipe.exports[1].importance, "none");
  EXPECT_EQ(recipe.exports[2].importance, "training_rows");
  EXPECT_THAT(recipe.exports[3].importance, testing::EndsWith("calibration.gguf"));
  EXPECT_FALSE(recipe.exports[4].verify);
  EXPECT_TRUE(recipe.report.examples);
}

TEST(Recipe, unknown_key_names_place_and_nearest) {
  EXPECT_EQ(error_of(kSmall + "optimizer:\n  learning_rat: 1\n"),
            "[graft.recipe] r.yaml:6:3: expected a known key, got 'optimizer.learning_rat' — did you mean 'optimizer.learning_rate'?");
  EXPECT_THAT(error_of(kSmall + "learning_rate: 1\n"), HasSubstr("got 'learning_rate' — did you mean 'optimizer.learning_rate'?"));
  EXPECT_THAT(error_of(kSmall + "zzzzzz: 1\n"), HasSubstr("r.yaml:5:1: expected a known key, got 'zzzzzz' — known here: model, adapter,"));
  EXPECT_THAT(error_of(kSmall, {"run.sede=1"}), HasSubstr("--set run.sede=1: expected a known key, got 'run.sede' — did you mean 'run.seed'?"));
}

TEST(Recipe, all_problems_at_once) {
  const std::string error = error_of(
      "model: {bse: x, compute: bfloat8}\n"
      "data: {train: [{path: a.csv}], max_tokens: many}\n"
      "adapter: {rank: 0, dropout: 1}\n"
      "optimizer: {learning_rate: '2e-4', clip: -1}\n"
      "schedule: {shape: cosin}\n"
      "run: {deterministic: yes, device: gpu}\n"
      "export: [gguf:Q3]\n");
  EXPECT_THAT(error, HasSubstr("14 problems:"));
  EXPECT_THAT(error, HasSubstr("r.yaml:1:9: expected a known key, got 'model.bse' — did you mean 'model.base'?"));
  EXPECT_THAT(error, HasSubstr("r.yaml:1:8: expected the key 'model.base' (path), got none"));
  EXPECT_THAT(error, HasSubstr("r.yaml:1:26: expected model.compute to be one of bfloat16, float32, got 'bfloat8' — did you mean 'bfloat16'?"));
  EXPECT_THAT(error, HasSubstr("expected the key 'data.train.0.format'"));
  EXPECT_THAT(error, HasSubstr("expected data.max_tokens to be an integer from 2 to 16777216, got 'many'"));
  EXPECT_THAT(error, HasSubstr("expected adapter.rank to be an integer from 1 to 65536, got '0'"));
  EXPECT_THAT(error, HasSubstr("expected adapter.dropout to be a number from 0 to below 1, got '1'"));
  EXPECT_THAT(error, HasSubstr("expected optimizer.learning_rate to be auto or a number above 0, got '2e-4' — remove the quotes"));
  EXPECT_THAT(error, HasSubstr("expected optimizer.clip to be a number of at least 0, got '-1'"));
  EXPECT_THAT(error, HasSubstr("got 'cosin' — did you mean 'cosine'?"));
  EXPECT_THAT(error, HasSubstr("expected run.deterministic to be true or false, got 'yes'"));
  EXPECT_THAT(error, HasSubstr("expected run.device to be auto, cpu or cuda:N, got 'gpu'"));
  EXPECT_THAT(error, HasSubstr("expected the key 'run.out' (path), got none"));
  EXPECT_THAT(error, HasSubstr("expected export.0 to be one of peft,"));
}

// Found by fuzzing.
TEST(Recipe, sections_of_the_wrong_kind) {
  EXPECT_THAT(error_of("data: [1, 2]\nmodel: {base: m}\n"), HasSubstr("expected data to be a mapping with keys, got a list of 2"));
  EXPECT_THAT(error_of("data: {train: 3}\nrun: []\n"), HasSubstr("expected data.train to be a list, got '3'"));
}

TEST(Recipe, shows_twenty_problems_and_counts_the_rest) {
  std::string text = kSmall;
  for (int i = 0; i < 30; ++i) text += "unknown" + std::to_string(i) + ": 1\n";
  EXPECT_THAT(error_of(text), testing::AllOf(HasSubstr("30 problems:"), HasSubstr("unknown19"), HasSubstr("\n  and 10 more"),
                                             testing::Not(HasSubstr("unknown20"))));
}

TEST(Recipe, broken_yaml) {
  EXPECT_THAT(error_of("model: {base: x\nrun: 1"), HasSubstr("(r.yaml:"));
  EXPECT_THAT(error_of("run: {seed: 1}\nrun: {seed: 2}\n"), HasSubstr("got 'run' again (first on line 1) — remove one (r.yaml:2:1)"));
  EXPECT_THAT(error_of(""), HasSubstr("r.yaml:1:1: expected a recipe to be a mapping with keys, got nothing"));
  EXPECT_THAT(error_of("- a\n"), HasSubstr("got a list of 1"));
  EXPECT_THAT(error_of("a: 1\n---\nb: 1\n"), HasSubstr("expected one document"));
  EXPECT_THAT(error_of("a: !!python/object:os.system ls\n"), HasSubstr("without a type tag"));
  EXPECT_THAT(error_of("? [a]\n: 1\n"), HasSubstr("expected a text as key"));
  EXPECT_THAT(error_of(std::string(2 << 20, '#')), HasSubstr("at most 1 MiB"));
  EXPECT_THAT(error_of(std::string(100'000, '[')), HasSubstr("[graft.recipe] expected"));
  EXPECT_THAT(error_of("a: &a [*a]\n"), HasSubstr("holds itself"));
}

TEST(Recipe, alias_bomb_is_refused) {
  std::string text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 10; ++i) {
    const std::string previous = "*a" + std::to_string(i - 1);
    text += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int j = 0; j < 10; ++j) text += previous + (j < 9 ? ", " : "]\n");
  }
  EXPECT_THAT(error_of(text), HasSubstr("once its aliases are expanded"));
}

TEST(Recipe, aliases_and_merge_keys_share_sources) {
  const Recipe recipe = parse(
      "model: {base: m}\nrun: {out: o}\n"
      "data:\n"
      "  train: [&rows {path: train.csv, format: labelled, text: t, label: l, prompt: &p 'Is it {t}?'}]\n"
      "  test: [{<<: *rows, path: test.csv}]\n",
      {"data.test.0.weight=2"});
  EXPECT_EQ(recipe.data.test[0].path, "test.csv");
  EXPECT_EQ(*recipe.data.test[0].prompt, "Is it {t}?");
  EXPECT_EQ(recipe.data.test[0].weight, 2);
  EXPECT_EQ(recipe.data.train[0].weight, 1);
}

TEST(Recipe, overrides) {
  const Recipe recipe = parse(kSmall, {"data.train.0.path=other.jsonl", "data.train.1={path: b.jsonl, format: messages}",
                                       "optimizer.learning_rate=null", "optimizer.learning_rate=auto", "export=[peft]"});
  EXPECT_EQ(recipe.data.train[0].path, "other.jsonl");
  EXPECT_EQ(recipe.data.train[1].path, "b.jsonl");
  EXPECT_EQ(recipe.exports[0].format, "peft");
  EXPECT_EQ(parse("data: {train: [{path: x, format: messages}]}\nmodel: {base: b}\n", {"run.out=here"}).run.out, "here");
  EXPECT_THAT(error_of(kSmall, {"run.seed"}), HasSubstr("expected --set key=value, got 'run.seed'"));
  EXPECT_THAT(error_of(kSmall, {"data.train.2.path=x"}), HasSubstr("expected a position from 0 to 1 after 'data.train', got '2'"));
  EXPECT_THAT(error_of(kSmall, {"model.base.x=1"}), HasSubstr("expected 'model.base' to hold further keys, got 'm.gguf'"));
  EXPECT_THAT(error_of(kSmall, {"run..seed=1"}), HasSubstr("single dots"));
  EXPECT_THAT(error_of(kSmall, {"run.seed=[1"}), HasSubstr("--set run.seed=[1"));
  EXPECT_THAT(error_of(kSmall, {"run.seed=x"}), HasSubstr("--set run.seed=x: expected run.seed to be an integer"));
}

TEST(Recipe, keys_that_need_each_other) {
  const auto source = [](const std::string& inner) {
    return error_of(fmt::format("model: {{base: m}}\nrun: {{out: o}}\ndata:\n  train:\n    - {{{}}}\n", inner));
  };
  EXPECT_THAT(source("path: a.jsonl, format: messages, label: l"), HasSubstr("r.yaml:5:48: expected no key 'data.train.0.label' for format messages"));
  EXPECT_THAT(source("path: a.csv, format: messages"), HasSubstr("a table has no conversations"));
  EXPECT_THAT(source("path: a.txt, format: text, prompt: x"), HasSubstr("expected no key 'data.train.0.prompt' for format text"));
  EXPECT_THAT(source("path: a.csv, format: labelled, text: t, label: l, prompt: 'Which?'"), HasSubstr("every row would look alike"));
  EXPECT_THAT(error_of(kSmall, {"data.train=[]"}), HasSubstr("got an empty list"));
  EXPECT_THAT(error_of(kSmall, {"run.early_stopping.patience=2"}), HasSubstr("expected validation rows for early stopping"));
  EXPECT_THAT(error_of(kSmall, {"schedule.warmup=1.5"}), HasSubstr("a whole number of steps, got 1.5"));
  EXPECT_THAT(error_of(kSmall, {"export=[peft, {format: peft}]"}), HasSubstr("each export format once"));
  EXPECT_THAT(error_of(kSmall, {"data.validation_fraction=0.1", "data.validation=[{path: v.jsonl, format: messages}]"}), HasSubstr("got both"));
  EXPECT_THAT(error_of(kSmall, {"data.template_date=2026-02-29"}), HasSubstr("YYYY-MM-DD"));
}

TEST(Recipe, training_through_a_rounding) {
  const auto rounded = [](const std::string& form, const std::vector<std::string>& more) {
    std::vector<std::string> overrides = {"adapter.quantization_aware=" + form};
    overrides.insert(overrides.end(), more.begin(), more.end());
    return error_of(kSmall, overrides);
  };
  EXPECT_EQ(parse(kSmall, {"adapter.quantization_aware=gguf:Q4_K_M", "export=[{format: 'gguf:Q8_0', importance: training_rows}]"}).adapter.quantization_aware, "gguf:Q4_K_M");
  for (const char* form : {"peft", "gguf-lora", "gguf:F32", "gguf:F16", "safetensors"}) EXPECT_THAT(rounded(form, {}), HasSubstr("none, gguf:Q8_0, gguf:Q4_0")) << form;
  EXPECT_THAT(rounded("gguf:Q4_1", {"adapter.kind=none"}), HasSubstr("expected adapter.kind lora with adapter.quantization_aware gguf:Q4_1, got none"));
  EXPECT_THAT(rounded("gguf:Q4_1", {"adapter.dropout=0.1"}), HasSubstr("expected adapter.dropout 0 with adapter.quantization_aware gguf:Q4_1, got 0.1"));
  EXPECT_THAT(rounded("gguf:Q4_1", {"run.shard_base=true"}), HasSubstr("expected run.shard_base false"));
  EXPECT_THAT(rounded("gguf:Q4_1", {"export=[{format: 'gguf:Q4_1', importance: training_rows}]"}), HasSubstr("expected export.0.importance none"));
}

TEST(Recipe, relative_paths) {
  const auto here = std::filesystem::current_path();
  const Recipe recipe = parse_recipe(kSmall, "x", "recipes/sub", {"data.train.0.path=shell/rows.jsonl", "run.cache=../cache"});
  EXPECT_EQ(recipe.model.base, "recipes/sub/m.gguf");          // in the file: relative to its folder
  EXPECT_EQ(recipe.data.train[0].path, "shell/rows.jsonl");    // typed in the shell: relative to the working directory
  EXPECT_EQ(recipe.run.out, "runs/a");
  EXPECT_EQ(*recipe.run.cache, (here.parent_path() / "cache").string());
  const auto json = resolved_json(recipe, "runs/a");
  EXPECT_EQ(json["model"]["base"], "../../recipes/sub/m.gguf");
  EXPECT_EQ(json["run"]["out"], "runs/a");
}

TEST(Recipe, no_artefact_holds_the_home_folder) {
  const std::string home = std::getenv("HOME") ? std::getenv("HOME") : "";
  setenv("HOME", "/home/alice", 1);
  const Recipe recipe = parse(kSmall, {"model.base=/home/alice/models/m.gguf", "data.train.0.path=~/rows.jsonl"});
  EXPECT_EQ(recipe.data.train[0].path, "/home/alice/rows.jsonl");
  const std::string text = resolved_yaml(recipe, "/srv/runs/a");
  EXPECT_THAT(text, HasSubstr("base: ~/models/m.gguf\n"));
  EXPECT_THAT(text, testing::Not(HasSubstr("alice")));
  EXPECT_THAT(resolved_yaml(recipe, "/home/alice/runs/a"), HasSubstr("base: ../../models/m.gguf\n"));
  setenv("HOME", home.c_str(), 1);
}

TEST(Recipe, resolved_yaml_reads_back_to_the_same) {
  Recipe recipe = parse(kSmall, {"export=[gguf:F16, {format: 'gguf:Q8_0', verify: {min_share_of_gain: 0.95}}, {format: peft, verify: none}, {format: 'gguf:Q2_K', importance: training_rows}, {format: 'gguf:Q4_0', importance: /data/i.gguf}]", "optimizer.learning_rate=3.3e-5", "run.threads=2",
                                 "data.template_arguments={on: 'yes', n: '12', deep: {list: [1, 2.5, null, true, []]}, empty: {}}"});
  recipe.data.train[0].format = "labelled";
  recipe.data.train[0].text = "null";
  recipe.data.train[0].label = "12";
  recipe.data.train[0].prompt = "Which queue?\n  - a: \"b\" # no comment\n\nTicket: {null}";
  recipe.data.train[0].system = "Zwölf Kühe\tund\nein \\ Strich \n";
  const std::string text = resolved_yaml(recipe);
  const Recipe again = parse(text);
  EXPECT_EQ(resolved_json(again).dump(1), resolved_json(recipe).dump(1)) << text;
  EXPECT_EQ(resolved_yaml(again), text);
  EXPECT_THAT(text, HasSubstr("learning_rate: 3.3e-05"));
  EXPECT_THAT(text, HasSubstr("prompt: |-\n        Which queue?\n"));
}

TEST(Recipe, load_recipe_names_the_file) {
  EXPECT_THROW(load_recipe("no/such/recipe.yaml", {}), UserError);
  EXPECT_THROW(load_recipe(".", {}), UserError);
}

TEST(Recipe, documentation_is_the_committed_page) {
  const std::filesystem::path root = source_folder();
  std::ifstream file(root / "docs/recipes.md");
  std::ostringstream text;
  text << file.rdbuf();
  if (std::getenv("GRAFT_WRITE_DOCS")) std::ofstream(root / "docs/recipes.md") << recipe_documentation();
  else EXPECT_EQ(text.str(), recipe_documentation()) << "run this test with GRAFT_WRITE_DOCS=1 to write docs/recipes.md";
}

// Paths that the user must give are missing from a committed recipe, and nothing else.
TEST(Recipe, every_committed_recipe_is_valid) {
  int recipes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(source_folder() / "recipes")) {
    if (entry.path().extension() != ".yaml") continue;
    ++recipes;
    std::vector<std::string> overrides;
    for (const std::string split : {"train", "test"}) {
      std::ifstream file(entry.path());
      std::ostringstream text;
      text << file.rdbuf();
      if (text.str().find("--set data." + split + ".0.path=") != std::string::npos) overrides.push_back("data." + split + ".0.path=rows.jsonl");
    }
    EXPECT_NO_THROW(load_recipe(entry.path(), overrides)) << entry.path();
    if (overrides.empty()) continue;
    EXPECT_THROW(load_recipe(entry.path(), {}), UserError);
  }
  EXPECT_GE(recipes, 5);
}

TEST(LearningRate, table_of_families) {
  EXPECT_NEAR(auto_learning_rate("llama", 2000), 5e-4, 1e-12);
  EXPECT_NEAR(auto_learning_rate("llama", 576), 1.322e-3, 1e-6);
  EXPECT_NEAR(auto_learning_rate("qwen3", 1024), 5.266e-4, 1e-7);
  EXPECT_THROW(auto_learning_rate("gemma", 640), UserError);
}

}  // namespace
}  // namespace graft
