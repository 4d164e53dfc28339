#include "checkpoints/codecs/gguf_types.h"

#include <gtest/gtest.h>

namespace graft {
namespace {

TensorType type_for(GgufFormat format, std::string_view name, std::vector<int64_t> shape, const GgufModelFacts& model) {
  return gguf_type_for(format, name, shape, model);
}

TEST(GgufTypes, FormatsHaveNamesAndFileTypes) {
  EXPECT_EQ(gguf_format_names().size(), 20u);
  for (const auto name : gguf_format_names()) EXPECT_EQ(gguf_format_name(gguf_format_from_name(name).value()), name);
  EXPECT_EQ(gguf_format_from_name("Q4_K"), std::nullopt);
  EXPECT_EQ(gguf_file_type(GgufFormat::kQ4_1), 3u);
  EXPECT_EQ(gguf_file_type(GgufFormat::kQ4_K_M), 15u);
  EXPECT_EQ(gguf_file_type(GgufFormat::kBF16), 32u);
  EXPECT_EQ(gguf_format_of_file_type(15), GgufFormat::kQ4_K_M);
  EXPECT_EQ(gguf_format_of_file_type(38), GgufFormat::kMXFP4);
  EXPECT_TRUE(gguf_takes_importance(GgufFormat::kQ2_K));
  EXPECT_FALSE(gguf_takes_importance(GgufFormat::kQ8_0));
  EXPECT_FALSE(gguf_takes_importance(GgufFormat::kBF16));
  EXPECT_EQ(gguf_format_of_file_type(999), std::nullopt);
}

// llama.cpp has the form for experts only.
TEST(GgufTypes, Mxfp4OfAModelWithoutExpertsIsItsLayersMatrices) {
  const GgufModelFacts model{.num_layers = 30, .tied_embeddings = true};
  EXPECT_EQ(type_for(GgufFormat::kMXFP4, "token_embd.weight", {49152, 576}, model), TensorType::kQ8_0);
  EXPECT_EQ(type_for(GgufFormat::kMXFP4, "blk.0.attn_v.weight", {192, 576}, model), TensorType::kMXFP4);
  EXPECT_EQ(type_for(GgufFormat::kMXFP4, "blk.29.ffn_down.weight", {576, 1536}, model), TensorType::kMXFP4);
  EXPECT_EQ(type_for(GgufFormat::kMXFP4, "blk.29.attn_norm.weight", {576}, model), TensorType::kF32);
  EXPECT_EQ(type_for(GgufFormat::kMXFP4, "blk.0.attn_v.weight", {192, 48}, model), TensorType::kF16);
}

// SmolLM2-135M: 576 columns take no K-quants. Its Q4_1 file by llama.cpp has a Q8_0 embedding and 210 Q4_1 tensors.
TEST(GgufTypes, SmolLm2FallsBackAsLlamaCppDoes) {
  const GgufModelFacts model{.num_layers = 30, .tied_embeddings = true};
  EXPECT_EQ(type_for(GgufFormat::kQ4_1, "token_embd.weight", {49152, 576}, model), TensorType::kQ8_0);
  EXPECT_EQ(type_for(GgufFormat::kQ4_1, "blk.0.ffn_down.weight", {576, 1536}, model), TensorType::kQ4_1);
  EXPECT_EQ(type_for(GgufFormat::kQ4_1, "blk.0.attn_norm.weight", {576}, model), TensorType::kF32);
  EXPECT_EQ(type_for(GgufFormat::kQ4_K_M, "token_embd.weight", {49152, 576}, model), TensorType::kQ8_0);
  EXPECT_EQ(type_for(GgufFormat::kQ4_K_M, "blk.0.attn_q.weight", {576, 576}, model), TensorType::kQ5_0);
  EXPECT_EQ(type_for(GgufFormat::kQ4_K_M, "blk.0.attn_v.weight", {192, 576}, model), TensorType::kQ8_0);
  EXPECT_EQ(type_for(GgufFormat::kQ4_K_M, "blk.3.attn_v.weight", {192, 576}, model), TensorType::kQ5_0);
  EXPECT_EQ(type_for(GgufFormat::kQ4_K_M, "blk.0.ffn_down.weight", {576, 1536}, model), TensorType::kQ6_K);
  EXPECT_EQ(type_for(GgufFormat::kQ4_K_M, "blk.3.ffn_down.weight", {576, 1536}, model), TensorType::kQ4_K);
}

TEST(GgufTypes, MediumMixOfA32LayerModel) {
  const GgufModelFacts model{.num_layers = 32};
  std::string more_bits;
  for (int layer = 0; layer < 32; ++layer) {
    const auto type = type_for(GgufFormat::kQ4_K_M, "blk." + std::to_string(layer) + ".ffn_down.weight", {4096, 14336}, model);
    if (type == TensorType::kQ6_K) more_bits += std::to_string(layer) + " ";
  }
  EXPECT_EQ(more_bits, "0 1 2 3 6 9 12 15 18 21 24 27 28 29 30 31 ");
  EXPECT_EQ(type_for(GgufFormat::kQ4_K_M, "output.weight", {128256, 4096}, model), TensorType::kQ6_K);
  EXPECT_EQ(type_for(GgufFormat::kQ4_K_M, "token_embd.weight", {128256, 4096}, model), TensorType::kQ4_K);
  EXPECT_EQ(type_for(GgufFormat::kQ4_K_M, "blk.0.attn_q_norm.weight", {128}, model), TensorType::kF32);
  EXPECT_EQ(type_for(GgufFormat::kQ4_K_M, "blk.0.attn_q.bias", {4096}, model), TensorType::kF32);
  EXPECT_EQ(type_for(GgufFormat::kQ5_K_M, "blk.0.attn_v.weight", {1024, 4096}, model), TensorType::kQ6_K);
  EXPECT_EQ(type_for(GgufFormat::kQ5_K_M, "blk.4.attn_v.weight", {1024, 4096}, model), TensorType::kQ5_K);
  EXPECT_EQ(type_for(GgufFormat::kQ8_0, "output.weight", {128256, 4096}, model), TensorType::kQ8_0);
  EXPECT_EQ(type_for(GgufFormat::kF16, "output.weight", {128256, 4096}, model), TensorType::kF16);
  EXPECT_EQ(type_for(GgufFormat::kF16, "output_norm.weight", {4096}, model), TensorType::kF32);
}

TEST(GgufTypes, OddColumnsBecomeF16AndEightExpertsGetMore) {
  EXPECT_EQ(type_for(GgufFormat::kQ4_K_M, "blk.0.attn_q.weight", {60, 60}, {.num_layers = 2}), TensorType::kF16);
  EXPECT_EQ(type_for(GgufFormat::kQ8_0, "blk.0.attn_q.weight", {60, 60}, {.num_layers = 2}), TensorType::kF16);
  EXPECT_EQ(type_for(GgufFormat::kQ6_K, "blk.0.attn_q.weight", {64, 96}, {.num_layers = 2}), TensorType::kQ8_0);
  const GgufModelFacts mixtral{.num_layers = 32, .num_experts = 8};
  EXPECT_EQ(type_for(GgufFormat::kQ4_K_M, "blk.9.attn_k.weight", {1024, 4096}, mixtral), TensorType::kQ8_0);
  EXPECT_EQ(type_for(GgufFormat::kQ4_K_M, "blk.9.attn_output.weight", {4096, 4096}, mixtral), TensorType::kQ5_K);
  EXPECT_EQ(type_for(GgufFormat::kQ4_K_M, "blk.9.ffn_gate_inp.weight", {8, 4096}, mixtral), TensorType::kF32);
  EXPECT_EQ(type_for(GgufFormat::kQ4_K_M, "blk.9.ffn_gate_exps.weight", {8, 14336, 4096}, mixtral), TensorType::kQ4_K);
  EXPECT_EQ(type_for(GgufFormat::kQ4_K_M, "blk.10.attn_v.weight", {1024, 8192}, {.architecture = "llama", .num_layers = 80, .heads_per_group = 8}), TensorType::kQ5_K);
}

}  // namespace
}  // namespace graft
