// Exports read back by graft itself; what engines read of them is proven in tests/exports.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoints/peft_adapter.h"
#include "kernels/common/error.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "tests/support/error_of.h"
#include "tests/support/relative_error.h"
#include "tests/trainer/torch/generation_tiny_model.h"
#include "trainer/adapters/adapter_files.h"
#include "trainer/exports/export.h"

namespace graft {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// A tiny llama directory with an adapter on some of its layers; B random, so that it changes the logits.
struct Trained {
  test::TinyModel model{"llama"};
  AdapterOptions options;
  std::unique_ptr<AdapterSet> adapters;
  test::TemporaryFolder out;

  Trained() {
    options.rank = 3;
    options.alpha = 5;
    options.scaling = "rslora";
    options.targets = {"q_proj", "down_proj", "model.layers.1.self_attn.k_proj"};
    adapters = std::make_unique<AdapterSet>(*model.decoder, options, 1);
    auto* values = adapters->parameters.data_ptr<float>();
    for (int64_t i = 0; i < adapters->num_parameters(); ++i) values[i] = static_cast<float>(counter_uniform(3, 0, i) - 0.5);
  }

  ExportResult to(const std::string& format, const std::string& name, bool replace = false) {
    ExportRequest request;
    request.base = model.folder.path();
    request.decoder = model.decoder.get();
    request.adapters = adapters.get();
    request.options = options;
    request.format = format;
    request.out = out / name;
    request.facts = {{"seed", "7"}};
    request.replace = replace;
    return export_model(request);
  }
};

at::Tensor logits_of(const Decoder& decoder) {
  Batch batch;
  batch.add_document({3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9});
  return head_logits(decoder.forward(batch), decoder.head());
}

TEST(Export, MergedFormsComputeWhatWasTrained) {
  Trained trained;
  const auto expected = logits_of(*trained.model.decoder);
  trained.adapters->set_enabled(false);
  EXPECT_GT(relative_error(logits_of(*trained.model.decoder), expected), 0.05);
  trained.adapters->set_enabled(true);
  const std::pair<const char*, double> forms[] = {{"gguf:F32", 1e-5}, {"gguf:F16", 2e-3}, {"gguf:BF16", 2e-2}, {"gguf:Q8_0", 5e-2},
                                                  {"safetensors:F32", 1e-5}, {"safetensors:F16", 2e-3}, {"safetensors", 2e-2}};
  for (const auto& [form, tolerance] : forms) {
    std::string name = std::string("model_") + form;
    std::replace(name.begin(), name.end(), ':', '_');
    const auto result = trained.to(form, std::string(form).starts_with("gguf") ? name + ".gguf" : name);
    const auto served = load_decoder(result.path, ComputeType::kFloat32);
    EXPECT_LT(relative_error(logits_of(*served), expected), tolerance) << form;
    EXPECT_EQ(result.warning, "") << form;
    uint64_t bytes = 0;
    for (const auto& file : result.files) bytes += fs::file_size(file);
    EXPECT_EQ(result.bytes, bytes) << form;
  }
}

// GGUF splits kv_b_proj by heads and transposes the keys' part: its blocks are decoded, and no value changes.
TEST(Export, BlocksOfLatentKeysAndValuesKeepTheirValues) {
  test::TinyModel model("deepseek_v3");
  test::TemporaryFolder out;
  const auto exported = [&](const Decoder& decoder, const fs::path& base, const char* form, const char* name) {
    ExportRequest request;
    request.base = base;
    request.decoder = &decoder;
    request.format = form;
    request.out = out / name;
    return load_decoder(export_model(request).path, ComputeType::kFloat32);
  };
  const auto quantised = exported(*model.decoder, model.folder.path(), "gguf:Q8_0", "model.gguf");
  int blocks = 0;
  for (const auto& weight : quantised->weights()) {
    const bool of_latents = weight.rule->gguf.ends_with("attn_k_b.weight") || weight.rule->gguf.ends_with("attn_v_b.weight");
    blocks += of_latents && weight.tensor->type == TensorType::kQ8_0;
  }
  EXPECT_EQ(blocks, 2 * 2 * 4) << "keys and values of 4 heads in 2 layers";
  const auto decoded = exported(*quantised, out / "model.gguf", "safetensors:F32", "decoded");
  EXPECT_LT(relative_error(logits_of(*quantised), logits_of(*decoded)), 2e-6);
  const double rounding = relative_error(logits_of(*quantised), logits_of(*model.decoder));
  EXPECT_GT(rounding, 1e-5);
  EXPECT_LT(rounding, 5e-2);
}

TEST(Export, PeftFolderGivesTheSameAdapterBitForBit) {
  Trained trained;
  const auto result = trained.to("peft", "adapter");
  const auto decoder = load_decoder(trained.model.folder.path(), ComputeType::kFloat32);
  const auto options = adapter_options(*decoder, result.path);
  EXPECT_EQ(options.rank, 3);
  EXPECT_EQ(options.alpha, 5);
  EXPECT_EQ(options.scaling, "rslora");
  trained.adapters->set_enabled(false);
  const auto loaded = load_adapter(*decoder, result.path);
  EXPECT_EQ(loaded->adapters().size(), 5u);
  EXPECT_TRUE(loaded->parameters.equal(trained.adapters->parameters));
  EXPECT_EQ(loaded->scale(), trained.adapters->scale());
  // Every file is private, and the card names the base without its place.
  for (const auto& file : result.files) {
    EXPECT_EQ(fs::status(file).permissions(), fs::perms::owner_read | fs::perms::owner_write) << file;
    EXPECT_THAT(test::read_file(file), testing::Not(HasSubstr(trained.model.folder.path().parent_path().string()))) << file;
  }
  EXPECT_THAT(test::read_file(result.path / "README.md"), HasSubstr("| seed | 7 |"));
}

// Of every family: a module for each expert, named as checkpoints name it, and the same adapter when it is read again.
TEST(Export, ExpertsApartAreTheSameAdapter) {
  for (const auto& family : test::every_family()) {
    SCOPED_TRACE(family);
    test::TinyModel model(family);
    test::TemporaryFolder out;
    AdapterOptions options;
    options.rank = 3;
    options.alpha = 5;
    options.targets = {"all-linear"};
    const auto* experts = model.decoder->spec().experts();
    for (const auto* linear : model.decoder->linears()) {
      if (linear->is_bank() && linear->module_name.ends_with(".down_proj")) options.ranks[linear->module_name] = 2;
    }
    AdapterSet adapters(*model.decoder, options, 1);
    auto* values = adapters.parameters.data_ptr<float>();
    for (int64_t i = 0; i < adapters.num_parameters(); ++i) values[i] = static_cast<float>(counter_uniform(3, 0, i) - 0.5);
    ExportRequest request;
    request.base = model.folder.path();
    request.decoder = model.decoder.get();
    request.adapters = &adapters;
    request.options = options;
    request.format = "peft:per-expert";
    request.out = out / "adapter";
    if (!experts || family == "gpt_oss") {
      const char* expected = experts ? "expected experts that are modules of their own" : "expected a model with experts";
      EXPECT_THAT(test::error_of([&] { plan_export(request); }), HasSubstr(expected));
      EXPECT_THAT(test::error_of([&] { export_model(request); }), HasSubstr(expected));
      EXPECT_FALSE(fs::exists(request.out));
      continue;
    }
    const auto plan = plan_export(request);
    const auto result = export_model(request);
    EXPECT_EQ(plan.tensors.size(), result.tensors.size());
    const auto file = read_peft_adapter(result.path);
    int64_t gates = 0, downs = 0;
    for (const auto& [module, factors] : file.modules) {
      if (module.find(".experts.") == std::string::npos) continue;
      const bool is_down = module.ends_with(".down_proj") || module.ends_with(".w2");
      ++(is_down ? downs : gates);
      EXPECT_EQ(factors.rank, is_down ? 2 : 3) << module;
      EXPECT_EQ(factors.in, is_down ? experts->width : model.decoder->spec().hidden_size) << module;
      EXPECT_EQ(factors.out, is_down ? model.decoder->spec().hidden_size : experts->width) << module;
    }
    EXPECT_EQ(gates, 2 * downs);
    EXPECT_EQ(downs % experts->router.num_experts, 0);
    EXPECT_GT(downs, 0);
    const auto expected = logits_of(*model.decoder);
    adapters.set_enabled(false);
    EXPECT_GT(relative_error(logits_of(*model.decoder), expected), 1e-3);
    const auto loaded = load_adapter(*model.decoder, result.path);
    EXPECT_TRUE(loaded->parameters.equal(adapters.parameters));
    EXPECT_EQ(relative_error(logits_of(*model.decoder), expected), 0);
  }
}

// As PEFT with transformers 4 trains them: gate and up with an A each. Here they share one of the sum of the two ranks.
TEST(Export, ExpertsWithAnAForEachMatrixAreRead) {
  test::TinyModel model("qwen3_moe");
  test::TemporaryFolder out;
  PeftAdapter file;
  file.rank = 2;
  file.alpha = 3;
  file.target_modules = {"gate_proj", "up_proj", "down_proj"};
  uint64_t draw = 0;
  for (const auto& weight : model.decoder->weights()) {
    const auto& rule = *weight.rule;
    if (rule.ours.find(".experts.") == std::string::npos) continue;
    const int64_t rows = rule.shape[0], columns = rule.shape[1];
    LoraFactors factors{2, columns, rows, std::vector<float>(static_cast<size_t>(2 * columns)), std::vector<float>(static_cast<size_t>(2 * rows)), false};
    for (auto* values : {&factors.a, &factors.b}) {
      for (auto& value : *values) value = static_cast<float>(counter_uniform(5, 0, draw++) - 0.5);
    }
    file.modules[rule.hub.substr(0, rule.hub.size() - std::string(".weight").size())] = std::move(factors);
  }
  write_peft_adapter(out / "adapter", file);
  const auto loaded = load_adapter(*model.decoder, out / "adapter");
  int64_t checked = 0;
  for (const auto& adapter : loaded->adapters()) {
    const bool is_down = adapter.parts == 1;
    ASSERT_EQ(adapter.rank, is_down ? 2 : 4);
    EXPECT_EQ(adapter.slot.scale, 1.5);
    const auto a = adapter.slot.lora_a_RC.view({adapter.num_experts, adapter.rank, adapter.inputs}), b = adapter.slot.lora_b_OR.view({adapter.num_experts, adapter.outputs, adapter.rank});
    for (size_t i = 0; i < adapter.rules.size(); ++i) {
      const auto& rule = *adapter.rules[i];
      auto& own = file.modules.at(rule.hub.substr(0, rule.hub.size() - std::string(".weight").size()));
      const auto expected = at::matmul(at::from_blob(own.b.data(), {own.out, 2}), at::from_blob(own.a.data(), {2, own.in}));
      const int64_t expert = static_cast<int64_t>(i) / adapter.parts, part = static_cast<int64_t>(i) % adapter.parts;
      EXPECT_LT(relative_error(at::matmul(b[expert].narrow(0, part * own.out, own.out), a[expert]), expected), 1e-6) << rule.ours;
      ++checked;
    }
  }
  EXPECT_EQ(checked, static_cast<int64_t>(file.modules.size()));
  auto damaged = file;
  damaged.modules.erase("model.layers.1.mlp.experts.2.up_proj");
  write_peft_adapter(out / "damaged", damaged);
  EXPECT_THAT(test::error_of([&] { load_adapter(*model.decoder, out / "damaged"); }), HasSubstr("got none of model.layers.1.mlp.experts.2.up_proj"));
}

TEST(Export, ThePlanSaysWhatTheExportWrites) {
  Trained trained;
  ExportRequest request;
  request.base = trained.model.folder.path();
  request.decoder = trained.model.decoder.get();
  request.adapters = trained.adapters.get();
  for (const char* form : {"gguf:Q4_K_M", "safetensors", "gguf-lora", "peft"}) {
    request.format = form;
    const auto plan = plan_export(request);
    const bool is_file = std::string(form).starts_with("gguf");
    const auto result = trained.to(form, std::string("plan_") + form + (is_file ? ".gguf" : ""));
    EXPECT_EQ(describe_types(plan.tensors), describe_types(result.tensors)) << form;
    EXPECT_EQ(plan.tensors.size(), result.tensors.size()) << form;
    EXPECT_LT(plan.bytes, result.bytes) << form;
    EXPECT_GT(plan.bytes, result.bytes / 4) << form;
  }
  request.format = "gguf:Q4_K_M";   // 32 and 48 columns fit no block of 256, and 48 none of 32
  EXPECT_THAT(plan_export(request).notes, testing::Contains(HasSubstr("Q4_K wants columns in 256s, got 32, so they are Q5_0")));
}

TEST(Export, AnotherBaseIsRefused) {
  Trained trained;
  const auto& base = trained.model.folder.path();
  const std::vector<ManifestFile> files = {manifest_file(base / "model.safetensors"), manifest_file(base / "config.json")};
  check_base(base, files);
  auto other = files;
  other[0].sha256[5] = other[0].sha256[5] == '0' ? '1' : '0';
  EXPECT_THAT(test::error_of([&] { check_base(base, other); }), HasSubstr("model.safetensors has SHA-256"));
  other = files;
  other[1].bytes += 1;
  EXPECT_THAT(test::error_of([&] { check_base(base, other); }), HasSubstr("config.json has"));
  other[1].name = "tokenizer.json";
  EXPECT_THAT(test::error_of([&] { check_base(base, other); }), HasSubstr("tokenizer.json is missing"));
}

TEST(Export, OnlyAnExportIsReplaced) {
  Trained trained;
  trained.to("peft", "adapter");
  EXPECT_THAT(test::error_of([&] { trained.to("peft", "adapter"); }), HasSubstr("--force"));
  trained.to("peft", "adapter", /*replace=*/true);
  EXPECT_FALSE(fs::exists(trained.out / "adapter.partial"));
  EXPECT_FALSE(fs::exists(trained.out / "adapter.replaced"));
  fs::create_directories(trained.out / "notes");
  test::write_file(trained.out / "notes" / "diary.txt", "mine");
  EXPECT_THAT(test::error_of([&] { trained.to("peft", "notes", true); }), HasSubstr("holds other files"));
  EXPECT_THAT(test::error_of([&] { trained.to("gguf:F16", "model.bin"); }), HasSubstr("*.gguf"));
  EXPECT_THAT(test::error_of([&] { trained.to("gguf:F99", "model.gguf"); }), HasSubstr("gguf:Q4_K_M"));
}

TEST(Export, WeightsThatAFormCannotHoldNameTheTensor) {
  Trained trained;
  trained.adapters->parameters.fill_(1e4);
  EXPECT_THAT(test::error_of([&] { trained.to("gguf:F16", "big.gguf"); }), HasSubstr("blk.0.attn_q.weight"));
  EXPECT_FALSE(fs::exists(trained.out / "big.gguf"));
  EXPECT_FALSE(fs::exists(trained.out / "big.gguf.partial"));
}

TEST(Export, EveryFormNameIsRead) {
  for (const auto& name : export_format_names()) EXPECT_EQ(parse_export_format(name).name, name);
  EXPECT_EQ(parse_export_format("safetensors").safetensors, TensorType::kBF16);
  EXPECT_EQ(parse_export_format("gguf:Q4_1").gguf, GgufFormat::kQ4_1);
  for (const char* name : {"", "gguf", "gguf:", "gguf:q8_0", "safetensors:", "safetensors:Q8_0", "PEFT"}) {
    EXPECT_THAT(test::error_of([&] { parse_export_format(name); }), HasSubstr("gguf-lora")) << name;
  }
}

TEST(OwnGridWarning, SpeaksWhenMostAdaptedTensorsComeBackInTheirOwnCoarseType) {
  const auto tensors = [](TensorType stored, TensorType type, int same, int others) {
    std::vector<ExportedTensor> list(same, {"a", {32, 32}, stored, type, true});
    list.insert(list.end(), others, {"b", {32, 32}, TensorType::kF16, type, true});
    list.insert(list.end(), 20, {"c", {32, 32}, type, type, false});   // not adapted: nothing to lose
    return list;
  };
  EXPECT_THAT(own_grid_warning(tensors(TensorType::kQ4_1, TensorType::kQ4_1, 3, 2)), HasSubstr("3 of 5 adapted tensors go back onto the Q4_1 grid"));
  EXPECT_THAT(own_grid_warning(tensors(TensorType::kQ4_1, TensorType::kQ4_1, 3, 2)), HasSubstr("gguf:Q8_0 or gguf:F16, or gguf-lora"));
  EXPECT_EQ(own_grid_warning(tensors(TensorType::kQ4_1, TensorType::kQ4_1, 2, 2)), "");
  EXPECT_EQ(own_grid_warning(tensors(TensorType::kQ8_0, TensorType::kQ8_0, 4, 0)), "");
  EXPECT_EQ(own_grid_warning(tensors(TensorType::kF16, TensorType::kF16, 4, 0)), "");
  EXPECT_EQ(own_grid_warning(tensors(TensorType::kQ4_1, TensorType::kQ8_0, 4, 0)), "");
  EXPECT_EQ(own_grid_warning({}), "");
}

}  // namespace
}  // namespace graft
