// Training through an export's rounding: what is multiplied with is what the export holds.
#include <cstring>

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "tests/support/error_of.h"
#include "tests/trainer/torch/few_steps.h"
#include "trainer/exports/export.h"
#include "trainer/exports/served_weights.h"

namespace graft {
namespace {

using testing::HasSubstr;

AdapterOptions adapter_options_of(const std::string& form) {
  AdapterOptions options;
  options.rank = 3;
  options.alpha = 12;
  options.scaling = "rslora";
  options.quantization_aware = form;
  return options;
}

// A model, from its directory or from a GGUF file of it, with an adapter of random values that is rounded to `form`.
struct Rounded {
  test::TinyModel model;
  test::TemporaryFolder out;
  std::filesystem::path base;
  AdapterOptions options;
  std::unique_ptr<Decoder> decoder;
  std::unique_ptr<AdapterSet> adapters;
  std::unique_ptr<ServedWeights> served;

  Rounded(const std::string& family, const std::string& form, const std::string& base_form = "") : model(family), base(model.folder.path()), options(adapter_options_of(form)) {
    if (!base_form.empty()) base = exported(*model.decoder, nullptr, base_form, "base.gguf");
    decoder = load_decoder(base, ComputeType::kFloat32);
    adapters = std::make_unique<AdapterSet>(*decoder, options, 1);
    served = std::make_unique<ServedWeights>(*decoder, *adapters, base, form);
    set_values(7);
  }

  void set_values(uint64_t seed) {
    for (int64_t i = 0; i < adapters->num_parameters(); ++i) adapters->parameters.data_ptr<float>()[i] = static_cast<float>(0.3 * counter_uniform(seed, 0, static_cast<uint64_t>(i)) - 0.15);
  }

  std::filesystem::path exported(const Decoder& of, const AdapterSet* with, const std::string& form, const std::string& name, ExportResult* result = nullptr) {
    ExportRequest request;
    request.base = base;
    request.decoder = &of;
    request.adapters = with;
    request.options = options;
    request.format = form;
    request.out = out / name;
    const auto done = export_model(request);
    if (result) *result = done;
    return done.path;
  }
};

std::vector<std::byte> bytes_of_weight(const FrozenWeight& weight) { return {weight.row(0), weight.row(0) + weight.num_bytes()}; }

// Every adapted matrix's blocks, in our rows.
std::vector<std::vector<std::byte>> blocks(const AdapterSet& adapters) {
  std::vector<std::vector<std::byte>> all;
  for (const auto& adapter : adapters.adapters()) {
    for (const auto& weight : adapter.slot.served) all.push_back(bytes_of_weight(weight));
  }
  return all;
}

// llama's rows of queries and keys stand in another order in GGUF, bloom's and gpt2's on the hub; phi3 fuses matrices; experts are stacked.
TEST(ServedWeights, AreTheBytesOfTheExport) {
  const std::tuple<const char*, const char*, const char*> cases[] = {{"llama", "gguf:Q4_1", ""},  {"llama", "gguf:Q4_1", "gguf:Q4_1"}, {"llama", "gguf:Q4_K_M", "gguf:Q8_0"}, {"gpt2", "gguf:Q5_0", ""},
                                                                     {"bloom", "gguf:Q8_0", ""}, {"phi3", "gguf:IQ4_NL", ""},        {"gemma3_text", "gguf:Q4_0", "gguf:F16"},
                                                                     {"qwen3_moe", "gguf:Q4_0", ""},    {"gpt_oss", "gguf:Q5_1", "gguf:Q8_0"},
                                                                     {"llama", "compressed-tensors:w4a16:g32", "gguf:Q4_1"}};
  for (const auto& [family, form, base_form] : cases) {
    Rounded rounded(family, form, base_form);
    rounded.served->update();
    const auto held = blocks(*rounded.adapters);
    ExportResult result;
    auto decoder = load_decoder(rounded.exported(*rounded.decoder, rounded.adapters.get(), form, std::string(form).starts_with("gguf") ? "tuned.gguf" : "tuned", &result), ComputeType::kFloat32);
    EXPECT_EQ(result.warning, "");
    EXPECT_THAT(result.notes, testing::Contains(HasSubstr("trained through the rounding to")));
    size_t next = 0;
    int64_t bytes = 0, quantised = 0;
    for (auto* linear : decoder->linears()) {
      for (const auto* weight : linear->weights()) {
        ASSERT_LT(next, held.size());
        EXPECT_TRUE(bytes_of_weight(*weight) == held[next++]) << family << " " << form << " " << linear->module_name << " " << info(weight->type()).name;
        quantised += info(weight->type()).quantized;
        bytes += weight->num_bytes();
      }
    }
    EXPECT_EQ(next, held.size());
    EXPECT_GT(quantised, 2) << family << " " << form;
    EXPECT_EQ(rounded.served->num_bytes(), bytes);
  }
}

TEST(ServedWeights, AreAPureFunctionOfBaseAndAdapter) {
  Rounded rounded("llama", "gguf:Q4_1", "gguf:Q4_1");
  rounded.served->update();
  const auto first = blocks(*rounded.adapters);
  rounded.set_values(8);
  rounded.served->update();
  EXPECT_FALSE(blocks(*rounded.adapters) == first);
  const int threads = at::get_num_threads();
  at::set_num_threads(threads == 1 ? 2 : 1);
  rounded.set_values(7);
  rounded.served->update();
  at::set_num_threads(threads);
  EXPECT_TRUE(blocks(*rounded.adapters) == first);
  // B = 0: the base's own grid gives the base's own blocks.
  rounded.adapters->parameters.zero_();
  rounded.served->update();
  for (const auto& adapter : rounded.adapters->adapters()) {
    const auto linears = rounded.decoder->linears();
    const auto* linear = *std::find_if(linears.begin(), linears.end(), [&](const Linear* one) { return one->module_name == adapter.module_name; });
    if (linear->weight.type() != TensorType::kQ4_1) continue;
    EXPECT_TRUE(bytes_of_weight(linear->weight) == bytes_of_weight(adapter.slot.served[0])) << adapter.module_name;
  }
}

at::Tensor hidden_of(const Decoder& decoder) {
  Batch batch;
  batch.add_document({3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5});
  return decoder.forward(batch);
}

// The forward pass is the export's to the bit where everything else is the same; switched off it is the base's; without it the adapter's product is added.
TEST(ServedWeights, AreWhatTheModelComputesWith) {
  Rounded rounded("llama", "gguf:Q4_1", "gguf:Q4_1");   // embeddings and head come back as they were
  const auto added = hidden_of(*rounded.decoder);
  rounded.served->update();
  const auto tuned = load_decoder(rounded.exported(*rounded.decoder, rounded.adapters.get(), "gguf:Q4_1", "tuned.gguf"), ComputeType::kFloat32);
  EXPECT_TRUE(hidden_of(*rounded.decoder).equal(hidden_of(*tuned)));
  EXPECT_FALSE(hidden_of(*rounded.decoder).equal(added));
  rounded.adapters->set_enabled(false);
  EXPECT_TRUE(hidden_of(*rounded.decoder).equal(hidden_of(*load_decoder(rounded.base, ComputeType::kFloat32))));
  rounded.adapters->set_enabled(true);
  rounded.served.reset();
  EXPECT_TRUE(hidden_of(*rounded.decoder).equal(added));
}

// Plain training and merging leaves the base's grid's old codes; trained through them, the exported model is the trained one and has learnt.
TEST(ServedWeights, TrainingLowersTheLossOfTheExport) {
  Rounded rounded("llama", "gguf:Q4_1", "gguf:Q4_1");
  rounded.adapters = nullptr, rounded.served = nullptr;
  rounded.adapters = std::make_unique<AdapterSet>(*rounded.decoder, rounded.options, 1);
  rounded.served = std::make_unique<ServedWeights>(*rounded.decoder, *rounded.adapters, rounded.base, "gguf:Q4_1");
  AdamW optimizer({}, rounded.adapters->num_parameters());
  std::vector<double> losses;
  for (int step = 0; step < 12; ++step) {
    rounded.served->update();
    rounded.adapters->gradients.zero_();
    MicroBatchOptions options;
    options.gradient_scale = 1.0 / 50;
    options.recompute = step % 2 ? Recompute::kLayer : Recompute::kNone;
    losses.push_back(run_micro_batch(*rounded.decoder, rounded.adapters.get(), test::some_batch(0, false), options).weighted_loss / 50);
    optimizer.step(rounded.adapters->parameters, rounded.adapters->gradients, 0.01);
  }
  rounded.served->update();
  EXPECT_LT(losses.back(), 0.8 * losses.front());
  const auto tuned = load_decoder(rounded.exported(*rounded.decoder, rounded.adapters.get(), "gguf:Q4_1", "tuned.gguf"), ComputeType::kFloat32);
  MicroBatchOptions forward;
  forward.want_gradient = false;
  const auto loss = [&](const Decoder& decoder) { return run_micro_batch(decoder, nullptr, test::some_batch(0, false), forward).weighted_loss / 50; };
  EXPECT_EQ(loss(*tuned), loss(*rounded.decoder));
}

TEST(ServedWeights, SayWhatDoesNotGo) {
  const auto error = [](const std::string& family, const AdapterOptions& options, const std::string& form) {
    test::TinyModel model(family);
    AdapterSet adapters(*model.decoder, options, 1);
    return test::error_of([&] { ServedWeights(*model.decoder, adapters, model.folder.path(), form); });
  };
  const auto options = adapter_options_of("gguf:Q4_1");
  EXPECT_THAT(error("deepseek_v3", [&] { auto of_latents = options; of_latents.targets = {"kv_b_proj"}; return of_latents; }(), "gguf:Q4_1"), HasSubstr("turned or with columns in another order"));
  EXPECT_THAT(error("llama", [&] { auto dropped = options; dropped.dropout = 0.1; return dropped; }(), "gguf:Q4_1"), HasSubstr("expected adapter.dropout 0"));
  EXPECT_THAT(error("llama", options, "peft"), HasSubstr("expected a merged form"));
}

}  // namespace
}  // namespace graft
