#include "checkpoints/importance_matrix.h"

#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoints/gguf_file.h"
#include "checkpoints/gguf_writer.h"
#include "kernels/common/error.h"
#include "tests/support/error_of.h"
#include "tests/support/files.h"

namespace graft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ImportanceMatrix small_matrix() {
  ImportanceMatrix matrix;
  matrix.entries["blk.0.ffn_down.weight"] = {{2, 4, 6, 8}, {4}};
  matrix.entries["blk.0.ffn_up_exps.weight"] = {{1, 2, 3, 10, 20, 30}, {0, 10}};
  matrix.datasets = {"train.jsonl"};
  matrix.chunk_count = 3;
  matrix.chunk_size = 512;
  return matrix;
}

// A matrix file of these tensors, whose numbers are one after another.
void write_tensors(const std::filesystem::path& path, const std::vector<TensorDeclaration>& tensors, const std::vector<std::vector<float>>& numbers,
                   const char* type = "imatrix") {
  GgufWriter writer(path, {gguf_string("general.type", type)}, tensors);
  for (size_t i = 0; i < tensors.size(); ++i) writer.write(tensors[i].name, std::as_bytes(std::span(numbers[i])));
  writer.finish();
}

TEST(ImportanceMatrix, IsWrittenAndReadBack) {
  const test::TemporaryFolder folder;
  write_importance_matrix(small_matrix(), folder / "i.gguf");
  const auto back = read_importance_matrix(folder / "i.gguf");
  ASSERT_EQ(back.entries.size(), 2u);
  EXPECT_THAT(back.entries.at("blk.0.ffn_down.weight").sums, ElementsAre(2, 4, 6, 8));
  EXPECT_THAT(back.entries.at("blk.0.ffn_up_exps.weight").counts, ElementsAre(0, 10));
  EXPECT_EQ(back.entries.at("blk.0.ffn_up_exps.weight").columns(), 3);
  EXPECT_THAT(back.datasets, ElementsAre("train.jsonl"));
  EXPECT_EQ(back.chunk_count, 3u);
  EXPECT_EQ(back.chunk_size, 512u);
}

TEST(ImportanceMatrix, GivesMeansAndOnesToExpertsWithoutTokens) {
  const auto matrix = small_matrix();
  EXPECT_THAT(matrix.importance_of("blk.0.ffn_down.weight"), ElementsAre(0.5f, 1, 1.5f, 2));
  EXPECT_THAT(matrix.importance_of("blk.0.ffn_up_exps.weight"), ElementsAre(1, 1, 1, 1, 2, 3));
  EXPECT_TRUE(matrix.importance_of("output.weight").empty());
}

// As gguf-py reads it, and as it writes what llama-imatrix does.
TEST(ImportanceMatrix, IsThatOfGgufPy) {
  const test::TemporaryFolder folder;
  write_importance_matrix(small_matrix(), folder / "ours.gguf");
  test::run_python("tests/checkpoints/importance_matrix_golden.py", {(folder / "ours.gguf").string(), (folder / "theirs.gguf").string()});
  const auto theirs = read_importance_matrix(folder / "theirs.gguf");
  EXPECT_THAT(theirs.importance_of("blk.1.attn_q.weight"), ElementsAre(0.25f, 0.5f));
  EXPECT_THAT(theirs.importance_of("blk.1.ffn_gate_exps.weight"), ElementsAre(1, 2, 1, 1, 2.5f, 3));
  EXPECT_EQ(theirs.chunk_size, 512u);
}

TEST(ImportanceMatrix, DamagedFilesAreRefused) {
  const test::TemporaryFolder folder;
  const auto path = folder / "i.gguf";
  const auto error = [&] { return test::error_of([&] { read_importance_matrix(path); }); };
  const TensorDeclaration sums{"a.weight.in_sum2", TensorType::kF32, {1, 4}}, counts{"a.weight.counts", TensorType::kF32, {1, 1}};

  write_tensors(path, {sums, counts}, {{1, 2, 3, 4}, {2}});
  EXPECT_NO_THROW(read_importance_matrix(path));
  write_tensors(path, {sums, counts}, {{1, 2, 3, 4}, {2}}, "model");
  EXPECT_THAT(error(), HasSubstr("expected an importance matrix (general.type \"imatrix\"), got \"model\" (i.gguf)"));
  write_tensors(path, {sums}, {{1, 2, 3, 4}});
  EXPECT_THAT(error(), HasSubstr("got 0 counts and 4 sums (i.gguf)"));
  write_tensors(path, {counts}, {{2}});
  EXPECT_THAT(error(), HasSubstr("got 1 counts and 0 sums (i.gguf)"));
  write_tensors(path, {sums, {"a.weight.counts", TensorType::kF32, {3, 1}}}, {{1, 2, 3, 4}, {1, 2, 3}});
  EXPECT_THAT(error(), HasSubstr("got 3 counts and 4 sums (i.gguf)"));
  write_tensors(path, {sums, counts}, {{1, -2, 3, 4}, {2}});
  EXPECT_THAT(error(), HasSubstr("got -2 at 1 (a.weight.in_sum2, i.gguf)"));
  write_tensors(path, {sums, counts}, {{1, 2, 3, 4}, {std::numeric_limits<float>::infinity()}});
  EXPECT_THAT(error(), HasSubstr("got inf at 0 (a.weight.counts, i.gguf)"));
  write_tensors(path, {sums, counts, {"b.weight", TensorType::kF32, {1}}}, {{1, 2, 3, 4}, {2}, {1}});
  EXPECT_THAT(error(), HasSubstr("expected names that end in .in_sum2 or .counts, got b.weight, i.gguf"));
  write_tensors(path, {{"a.weight.in_sum2", TensorType::kI32, {1, 4}}, counts}, {{1, 2, 3, 4}, {2}});
  EXPECT_THAT(error(), HasSubstr("in F32, got I32 (a.weight.in_sum2, i.gguf)"));
  write_tensors(path, {}, {});
  EXPECT_NE(error(), "");
}

}  // namespace
}  // namespace graft
