// Dropout acts on every adapter, whichever of the linears of one input have one.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/trainer/torch/generation_tiny_model.h"
#include "trainer/adapters/adapter_set.h"

namespace graft {
namespace {

class AdapterDropout : public ::testing::TestWithParam<std::string> {};

TEST_P(AdapterDropout, ActsOnEachAdapterAlone) {
  const test::TinyModel model(GetParam());
  Batch batch;
  batch.add_document({7, 3, 90, 41, 12, 5, 66, 201});
  for (int64_t i = 0; i < batch.num_tokens(); ++i) batch.row_keys_N.push_back(i);
  std::vector<std::string> modules;
  for (const auto* linear : model.decoder->linears()) {
    if (!linear->is_bank()) modules.push_back(linear->module_name);   // experts refuse it
  }
  ASSERT_GE(modules.size(), 4u);
  for (const auto& module : modules) {
    AdapterOptions options;
    options.rank = 4;
    options.dropout = 0.5;
    options.targets = {module};
    AdapterSet adapters(*model.decoder, options, 3);
    const auto& adapter = adapters.adapters().front();
    adapters.parameters.narrow(0, adapter.offset_b, adapter.size_b()).fill_(0.1);
    const auto with_seed = [&](uint64_t seed) {
      batch.dropout_seed = seed;
      return model.decoder->forward(batch);
    };
    const auto off = with_seed(0), first = with_seed(1), second = with_seed(2);
    EXPECT_FALSE(at::equal(off, first)) << module;
    EXPECT_FALSE(at::equal(second, first)) << module;
    EXPECT_TRUE(at::equal(with_seed(1), first)) << module;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, AdapterDropout, ::testing::ValuesIn(test::every_family()));

}  // namespace
}  // namespace graft
