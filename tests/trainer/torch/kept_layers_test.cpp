// Models with some of their layers left out compute what those layers compute.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "tests/support/error_of.h"
#include "tests/support/relative_error.h"
#include "tests/trainer/torch/few_steps.h"
#include "trainer/exports/export.h"
#include "trainer/exports/kept_layers.h"

namespace graft {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::filesystem::path exported(const std::filesystem::path& base, const Decoder& decoder, const AdapterSet* adapters, const std::string& form, const std::filesystem::path& out,
                               const std::vector<int64_t>& layers) {
  ExportRequest request;
  request.base = base;
  request.decoder = &decoder;
  request.adapters = adapters;
  request.format = form;
  request.out = out;
  request.layers = layers;
  return export_model(request).path;
}

// Through the given layers only.
at::Tensor through(const Decoder& decoder, const Batch& batch, const std::vector<int64_t>& layers) {
  LayerStream stream{decoder.embed(batch), {}};
  for (const auto layer : layers) stream = decoder.run_layer(layer, stream, batch);
  return decoder.final_norm(stream.x_NC);
}

int64_t num_layers_of(const char* family) { return test::TinyModel(family).decoder->num_layers(); }

TEST(KeptLayers, ComputeWhatTheLayersOfTheWholeModelDo) {
  const auto batch = test::some_batch(0, false);
  for (const char* family : {"llama", "qwen3", "phi3", "bloom", "gpt2", "qwen3_moe", "gpt_oss", "gemma2"}) {
    const int64_t last = num_layers_of(family) - 1;
    ASSERT_GE(last, 1) << family;
    const std::vector<int64_t> layers = {last};
    test::TinyModel model(family);
    test::TemporaryFolder out;
    const auto error = test::error_of([&] { exported(model.folder.path(), *model.decoder, nullptr, "safetensors:F32", out / "tried", layers); });
    if (error != "no error") {   // the kind of a layer follows from its position
      EXPECT_THAT(error, HasSubstr("which layers are left")) << family;
      EXPECT_EQ(std::string(family), "gemma2");
      continue;
    }
    const auto cut = load_decoder(exported(model.folder.path(), *model.decoder, nullptr, "safetensors:F32", out / "cut", layers), ComputeType::kFloat32);
    EXPECT_EQ(cut->num_layers(), 1) << family;
    EXPECT_TRUE(at::equal(cut->forward(batch), through(*model.decoder, batch, layers))) << family;
  }
}

TEST(KeptLayers, OfAGgufFileAndWithAnAdapterMerged) {
  const auto batch = test::some_batch(0, false);
  test::TinyModel model("llama");
  test::TemporaryFolder out;
  const auto base = exported(model.folder.path(), *model.decoder, nullptr, "gguf:F32", out / "base.gguf", {});
  const auto decoder = load_decoder(base, ComputeType::kFloat32);
  AdapterOptions options;
  options.rank = 4;
  options.alpha = 8;
  AdapterSet adapters(*decoder, options, 3);
  for (int64_t i = 0; i < adapters.num_parameters(); ++i) adapters.parameters.data_ptr<float>()[i] = static_cast<float>(0.2 * counter_uniform(5, 1, static_cast<uint64_t>(i)) - 0.1);
  const std::vector<int64_t> layers = {decoder->num_layers() - 1};
  const auto cut = load_decoder(exported(base, *decoder, &adapters, "safetensors:F32", out / "cut", layers), ComputeType::kFloat32);
  const auto expected = through(*decoder, batch, layers);
  adapters.set_enabled(false);
  EXPECT_GT(relative_error(through(*decoder, batch, layers), expected), 1e-3) << "the adapter changes nothing: this test would pass without it";
  EXPECT_LT(relative_error(cut->forward(batch), expected), 1e-5);
}

TEST(KeptLayers, SayWhatDoesNotGo) {
  test::TinyModel model("llama");
  test::TemporaryFolder out;
  const auto error_with = [&](const std::string& form, const std::vector<int64_t>& layers) {
    return test::error_of([&] { exported(model.folder.path(), *model.decoder, nullptr, form, out / (form.starts_with("gguf") ? "cut.gguf" : "cut"), layers); });
  };
  EXPECT_THAT(error_with("safetensors", {0, 99}), HasSubstr("got 99"));
  EXPECT_THAT(error_with("gguf:F16", {0}), HasSubstr("merged form in Hugging Face layout"));
  EXPECT_THAT(parse_layers("0-2,5,7-8"), ElementsAre(0, 1, 2, 5, 7, 8));
  for (const char* wrong : {"", "a", "1,1", "3-2", "2,1", "0-", "-1", "1,,2"}) EXPECT_THAT(test::error_of([&] { parse_layers(wrong); }), HasSubstr("ascending")) << wrong;
}

}  // namespace
}  // namespace graft
