#include "checkpoints/peft_adapter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>

#include "checkpoints/safetensors_writer.h"
#include "kernels/common/error.h"
#include "tests/support/error_of.h"
#include "tests/support/files.h"

namespace graft {
namespace {

using ::testing::HasSubstr;

LoraFactors factors(int64_t rank, int64_t in, int64_t out) {
  LoraFactors made{rank, in, out, std::vector<float>(rank * in), std::vector<float>(out * rank)};
  for (size_t i = 0; i < made.a.size(); ++i) made.a[i] = 0.01f * static_cast<float>(i % 17);
  for (size_t i = 0; i < made.b.size(); ++i) made.b[i] = 0.02f * static_cast<float>(i % 13) - 0.1f;
  return made;
}

PeftAdapter example() {
  PeftAdapter adapter;
  adapter.rank = 4;
  adapter.alpha = 16;
  adapter.use_rslora = true;
  adapter.rank_pattern = {{"model.layers.0.mlp.down_proj", 2}};
  adapter.alpha_pattern = {{"v_proj", 10.5}};
  adapter.target_modules = {"q_proj", "v_proj", "down_proj"};
  adapter.base_model_name_or_path = "tiny";
  for (int layer = 0; layer < 2; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    adapter.modules[prefix + "self_attn.q_proj"] = factors(4, 32, 32);
    adapter.modules[prefix + "self_attn.v_proj"] = factors(4, 32, 16);
    adapter.modules[prefix + "mlp.down_proj"] = factors(layer == 0 ? 2 : 4, 48, 32);
  }
  return adapter;
}

double sum(const std::vector<float>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

void expect_as_peft_sees_it(const PeftAdapter& adapter, const std::string& printed) {
  const auto json = nlohmann::json::parse(printed);
  EXPECT_EQ(json.size(), adapter.modules.size());
  for (const auto& [module, own] : adapter.modules) {
    ASSERT_TRUE(json.contains(module)) << module;
    EXPECT_EQ(json[module][0], own.rank) << module;
    EXPECT_NEAR(json[module][1].get<double>(), adapter.scaling_of(module), 1e-12) << module;
    EXPECT_NEAR(json[module][2].get<double>(), sum(own.a), 1e-9) << module;
    EXPECT_NEAR(json[module][3].get<double>(), sum(own.b), 1e-9) << module;
  }
}

TEST(PeftAdapter, PeftReadsOursAndWeReadPefts) {
  test::TemporaryFolder folder;
  write_peft_adapter(folder / "ours", example());
  const std::string options =
      R"({"r":4,"lora_alpha":7,"target_modules":["q_proj","v_proj","up_proj"],"rank_pattern":{"layers.1.self_attn.q_proj":6},)"
      R"("alpha_pattern":{"^model.layers.0.self_attn.v_proj":3,"up_proj":5},"lora_dropout":0.1})";
  std::istringstream output(
      test::run_python("tests/checkpoints/peft_golden.py", {folder / "ours", folder / "theirs", options}));
  std::vector<std::string> printed;
  for (std::string line; std::getline(output, line);)
    if (line.starts_with('{')) printed.push_back(line);
  ASSERT_EQ(printed.size(), 2u) << output.str();
  expect_as_peft_sees_it(example(), printed[0]);
  const PeftAdapter theirs = read_peft_adapter(folder / "theirs");
  EXPECT_EQ(theirs.modules.size(), 6u);
  EXPECT_EQ(theirs.rank_of("model.layers.1.self_attn.q_proj"), 6);
  EXPECT_EQ(theirs.dropout, 0.1);
  expect_as_peft_sees_it(theirs, printed[1]);
}

TEST(PeftAdapter, RoundTripKeepsEverything) {
  test::TemporaryFolder folder;
  const PeftAdapter before = example();
  write_peft_adapter(folder / "adapter", before);
  const PeftAdapter after = read_peft_adapter(folder / "adapter");
  EXPECT_EQ(after.rank, 4);
  EXPECT_EQ(after.alpha, 16);
  EXPECT_TRUE(after.use_rslora);
  EXPECT_EQ(after.rank_pattern, before.rank_pattern);
  EXPECT_EQ(after.alpha_pattern, before.alpha_pattern);
  EXPECT_EQ(after.target_modules, before.target_modules);
  EXPECT_EQ(after.base_model_name_or_path, "tiny");
  ASSERT_EQ(after.modules.size(), before.modules.size());
  for (const auto& [module, own] : before.modules) {
    EXPECT_EQ(after.modules.at(module).a, own.a);
    EXPECT_EQ(after.modules.at(module).b, own.b);
  }
}

// Two parameters of one module, as PEFT wraps them: 3 experts, ranks 2 and (by a pattern) 4.
TEST(PeftAdapter, ExpertsAreParameters) {
  test::TemporaryFolder folder;
  PeftAdapter before;
  before.rank = 2;
  before.alpha = 3;
  before.rank_pattern = {{"gate_up_proj", 4}};
  before.alpha_pattern = {{"gate_up_proj", 6}};
  before.target_parameters = {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"};
  before.modules["model.layers.0.mlp.experts.base_layer"] = {12, 5, 8, std::vector<float>(60, 0.5f), std::vector<float>(96, 0.25f), true};
  before.modules["model.layers.0.mlp.experts"] = {6, 4, 5, std::vector<float>(24, 0.5f), std::vector<float>(30, 0.25f), true};
  write_peft_adapter(folder / "adapter", before);
  const auto path = folder / "adapter/adapter_config.json";
  auto config = nlohmann::json::parse(test::read_file(path));
  config["rank_pattern"] = {{".*\\.gate_up_proj", 4}};   // as PEFT writes it
  test::write_file(path, config.dump());
  const auto after = read_peft_adapter(folder / "adapter");
  EXPECT_EQ(after.target_parameters, before.target_parameters);
  EXPECT_EQ(after.rank_of("model.layers.0.mlp.experts.gate_up_proj"), 4);
  EXPECT_EQ(after.rank_of("model.layers.0.mlp.experts.down_proj"), 2);
  ASSERT_EQ(after.modules.size(), 2u);
  for (const auto& [module, own] : before.modules) {
    EXPECT_TRUE(after.modules.at(module).of_experts);
    EXPECT_EQ(after.modules.at(module).rank, own.rank);
    EXPECT_EQ(after.modules.at(module).b, own.b);
  }
  config.erase("target_parameters");   // without it they are no parameters, and their rank is wrong
  test::write_file(path, config.dump());
  EXPECT_THAT(test::error_of([&] { read_peft_adapter(folder / "adapter"); }), HasSubstr("where the config says rank 2"));
}

TEST(PeftAdapter, AnotherMethodIsAnError) {
  test::TemporaryFolder folder;
  const struct {
    const char *key, *value, *message;
  } cases[] = {
      {"use_dora", "true", "expected use_dora as plain LoRA, with this off, got true"},
      {"bias", "\"all\"", "expected bias as \"none\""},
      {"modules_to_save", "[\"lm_head\"]", "expected modules_to_save as plain LoRA"},
      {"layer_replication", "[[0,4]]", "expected layer_replication as plain LoRA"},
      {"target_parameters", "\"mlp.experts.down_proj\"", "expected target_parameters as a list of names"},
      {"some_new_method", "{\"x\":1}", "expected some_new_method as plain LoRA"},
      {"peft_type", "\"IA3\"", "expected peft_type as \"LORA\", got \"IA3\""},
      {"r", "0", "expected r as ranks from 1 on, got 0"},
      {"r", "\"8\"", "expected r as ranks from 1 on"},
      {"lora_alpha", "-1", "expected lora_alpha as numbers from 0 on"},
      {"init_lora_weights", "\"pissa_niter_4\"", "leaves the base as it is"},
      {"rank_pattern", "{\".*q_proj\":4}", "expected rank_pattern as module names without regular expressions"},
      {"rank_pattern", "{\"q_proj\":1.5}", "expected rank_pattern as ranks from 1 on"},
      {"target_modules", "[1]", "expected target_modules as a list of names"},
      {"rank_pattern", "{\"q_proj\":5}",
       "\"model.layers.0.self_attn.q_proj\" has A [4, 32] and B [32, 4] where the config says rank 5"},
  };
  for (const auto& item : cases) {
    SCOPED_TRACE(item.key);
    write_peft_adapter(folder / "adapter", example());
    const auto path = folder / "adapter/adapter_config.json";
    auto config = nlohmann::json::parse(test::read_file(path));
    config[item.key] = nlohmann::json::parse(item.value);
    test::write_file(path, config.dump());
    EXPECT_THAT(test::error_of([&] { read_peft_adapter(folder / "adapter"); }), HasSubstr(item.message));
  }
}

TEST(PeftAdapter, FactorsThatDoNotFitAreOneError) {
  test::TemporaryFolder folder;
  write_peft_adapter(folder / "adapter", example());
  SafetensorsWriter writer(folder / "adapter/adapter_model.safetensors",
                           {{"base_model.model.x.lora_A.weight", TensorType::kF32, {4, 1}},
                            {"base_model.model.y.lora_B.weight", TensorType::kF32, {1, 4}},
                            {"base_model.model.y.lora_magnitude_vector", TensorType::kF32, {4}}});
  const std::vector<std::byte> bytes(16);
  for (const char* name : {"x.lora_A.weight", "y.lora_B.weight", "y.lora_magnitude_vector"})
    writer.write(std::string("base_model.model.") + name, bytes);
  writer.finish();
  const std::string error = test::error_of([&] { read_peft_adapter(folder / "adapter"); });
  EXPECT_THAT(error, HasSubstr("got 3 differences"));
  EXPECT_THAT(error, HasSubstr("\"x\" has no lora_B"));
  EXPECT_THAT(error, HasSubstr("\"y\" has no lora_A"));
  EXPECT_THAT(error, HasSubstr("lora_magnitude_vector\" is no LoRA factor"));
}

TEST(PeftAdapter, MissingFilesAndPicklesAreNamed) {
  test::TemporaryFolder folder;
  EXPECT_THAT(test::error_of([&] { read_peft_adapter(folder.path()); }), HasSubstr("got no adapter_config.json"));
  write_peft_adapter(folder / "adapter", example());
  std::filesystem::remove(folder / "adapter/adapter_model.safetensors");
  EXPECT_THAT(test::error_of([&] { read_peft_adapter(folder / "adapter"); }), HasSubstr("adapter_model.safetensors"));
  test::write_file(folder / "adapter/adapter_model.bin", "pickle");
  EXPECT_THAT(test::error_of([&] { read_peft_adapter(folder / "adapter"); }), HasSubstr("got a Python pickle"));
}

TEST(PeftAdapter, WritingContradictoryRanksIsAnError) {
  test::TemporaryFolder folder;
  PeftAdapter adapter = example();
  adapter.rank_pattern.clear();
  EXPECT_THAT(test::error_of([&] { write_peft_adapter(folder / "adapter", adapter); }),
              HasSubstr("expected factors of rank 4, got rank 2"));
  EXPECT_FALSE(std::filesystem::exists(folder / "adapter/adapter_config.json"));
}

}  // namespace
}  // namespace graft
