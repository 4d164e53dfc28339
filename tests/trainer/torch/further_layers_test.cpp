// Files whose last layers predict further tokens (multi-token prediction): llama.cpp's converter counts these among the others; here they are skipped by name.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoints/gguf_writer.h"
#include "kernels/common/error.h"
#include "tests/trainer/torch/generation_tiny_model.h"
#include "trainer/exports/export.h"

namespace graft {
namespace {

class FurtherLayersOf : public testing::TestWithParam<std::pair<const char*, const char*>> {
 protected:
  const test::TinyModel model{GetParam().first};
  const std::string architecture = GetParam().second;
  const test::TemporaryFolder folder;

  // The model's GGUF file with one more layer that holds nothing a decoder computes with.
  std::filesystem::path file(uint32_t further, bool indexer_types = true) {
    ExportRequest request;
    request.base = model.folder.path();
    request.decoder = model.decoder.get();
    request.format = "gguf:F32";
    request.out = folder / "model.gguf";
    request.replace = true;
    const GgufFile exported(export_model(request).path);
    std::vector<GgufEntry> metadata = exported.metadata();
    const auto layers = static_cast<uint32_t>(model.decoder->spec().layers.size());
    const auto key = [&](const char* rest) { return architecture + "." + rest; };
    bool has_types = false;
    std::erase_if(metadata, [&](const GgufEntry& entry) {
      has_types |= entry.key == key("attention.indexer.types");
      return entry.key == key("block_count") || entry.key == key("nextn_predict_layers") || entry.key == key("attention.indexer.types");
    });
    metadata.push_back(gguf_u32(key("block_count"), layers + 1));
    metadata.push_back(gguf_u32(key("nextn_predict_layers"), further));
    if (has_types && indexer_types) metadata.push_back(gguf_i32s(key("attention.indexer.types"), {1, 0, 1, 1}));
    const auto name = "blk." + std::to_string(layers) + ".nextn.eh_proj.weight";
    std::vector<TensorDeclaration> declarations = {{name, TensorType::kF32, {2, 2}}};
    for (const auto& tensor : exported.tensors()) declarations.push_back({tensor.name, tensor.type, tensor.shape});
    auto path = folder / "further.gguf";
    GgufWriter writer(path, metadata, declarations);
    const std::vector<float> values(4, 1.0f);
    writer.write(name, std::as_bytes(std::span(values)));
    for (const auto& tensor : exported.tensors()) writer.write(tensor.name, tensor.bytes);
    writer.finish();
    return path;
  }

  double distance(const std::filesystem::path& path) {
    Batch batch;
    batch.add_document({7, 3, 90, 41, 5, 12, 33, 80, 9, 1, 77, 20, 4, 66});
    const auto expected = model.decoder->forward(batch), got = load_decoder(path, ComputeType::kFloat32)->forward(batch);
    return ((got - expected).norm() / expected.norm()).item<double>();
  }
};

INSTANTIATE_TEST_SUITE_P(Families, FurtherLayersOf,
                         testing::Values(std::pair{"glm4_moe", "glm4moe"}, std::pair{"deepseek_v3", "deepseek2"}, std::pair{"glm_moe_dsa", "glm-dsa"},
                                         std::pair{"qwen3_5_text", "qwen35"}, std::pair{"qwen3_5_moe_text", "qwen35moe"}),
                         [](const auto& info) { return std::string(info.param.first); });

TEST_P(FurtherLayersOf, AreNotComputed) { EXPECT_LE(distance(file(1)), 1e-5); }

TEST_P(FurtherLayersOf, AreLayersOfTheModelWhereTheHeaderDoesNotCountThem) {
  const auto path = file(0);
  EXPECT_THROW(load_decoder(path, ComputeType::kFloat32), UserError) << "a layer without its tensors";
}

TEST_P(FurtherLayersOf, AreFewerThanAllLayers) {
  const auto path = file(17);
  try {
    load_decoder(path, ComputeType::kFloat32);
    ADD_FAILURE() << "no error";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("expected nextn_predict_layers below block_count"));
  }
}

// Files from before GLM-5.2 do not say which layers share an indexer's keys: those without its tensors.
TEST_P(FurtherLayersOf, DoNotHideWhichLayersShareAnIndexer) { EXPECT_LE(distance(file(1, false)), 1e-5); }

}  // namespace
}  // namespace graft
