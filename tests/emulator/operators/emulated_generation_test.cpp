// Generation where every operator that has kernels runs them: sequences with caches have the hidden states of whole documents by the references.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/emulator/operators/kernels_under_test.h"
#include "tests/trainer/torch/generation_tiny_model.h"
#include "trainer/generation/sequence_batch.h"

namespace graft {
namespace {

class EmulatedGeneration : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Families, EmulatedGeneration, testing::Values("llama", "qwen3", "gemma2"), [](const auto& info) { return std::string(info.param); });

TEST_P(EmulatedGeneration, HasTheReferencesHiddenStates) {
  const test::TinyModel model(GetParam());
  const std::vector<std::vector<int32_t>> prompts = {{4, 8, 15, 16, 23, 42}, {4, 8, 15, 16, 9}, {4, 8, 15, 16, 7, 7, 1, 200, 33, 5, 6}}, more = {{3}, {}, {100, 101}};
  set_operator_path(OperatorPath::kReference);
  std::vector<at::Tensor> first, second;
  for (size_t d = 0; d < prompts.size(); ++d) {
    auto tokens = prompts[d];
    tokens.insert(tokens.end(), more[d].begin(), more[d].end());
    Batch batch;
    batch.add_document(tokens);
    const auto hidden = model.decoder->forward(batch);
    const auto prompt = static_cast<int64_t>(prompts[d].size());
    first.push_back(hidden.narrow(0, prompt - 1, 1));
    second.push_back(hidden.narrow(0, prompt, hidden.size(0) - prompt));
  }
  const test::KernelsUnderTest under_test;
  SequenceBatch sequences(*model.decoder);
  const auto error = [](const at::Tensor& got, const std::vector<at::Tensor>& expected) { return ((got - at::cat(expected)).norm() / at::cat(expected).norm()).item<double>(); };
  EXPECT_LE(error(sequences.start(prompts), first), 1e-5);
  EXPECT_LE(error(sequences.extend(more, Keep::kAll), second), 1e-5);
  EXPECT_EQ(under_test.plain_paths(), 0) << "an operator had no kernel for what it was given";
  EXPECT_GE(under_test.launches("append_to_caches"), 1);
}

}  // namespace
}  // namespace graft
