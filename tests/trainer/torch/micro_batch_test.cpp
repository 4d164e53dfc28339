// One step, computed in different ways, has one loss and one gradient.
#include "trainer/steps/micro_batch.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "tests/trainer/torch/generation_tiny_model.h"
#include "trainer/adapters/gguf_adapter.h"
#include "trainer/exports/export.h"
#include "trainer/optimizers/adamw.h"
#include "trainer/steps/routing_summary.h"

namespace graft {
namespace {

// Rows that begin alike, end apart, and take the loss on their last tokens; the third is weighted.
struct Row {
  std::vector<int32_t> tokens;
  int64_t first_supervised;
  float weight;
};

std::vector<Row> some_rows() {
  const std::vector<int32_t> prompt = {7, 3, 90, 41, 41, 12, 200, 5, 66};
  std::vector<Row> rows;
  for (int32_t r = 0; r < 8; ++r) {
    Row row{prompt, 0, r == 2 ? 0.5f : 1.0f};
    for (int32_t i = 0; i < 3 + 2 * r; ++i) row.tokens.push_back((r * 37 + i * i * 11 + 1) % 250);
    row.first_supervised = static_cast<int64_t>(row.tokens.size()) - 1 - r % 3;
    rows.push_back(row);
  }
  return rows;
}

Batch batch_of(const std::vector<Row>& rows) {
  Batch batch;
  for (const auto& row : rows) {
    batch.add_document(row.tokens);
    for (int64_t i = 0; i < static_cast<int64_t>(row.tokens.size()); ++i) {
      const bool last = i + 1 == static_cast<int64_t>(row.tokens.size());
      batch.labels_N.push_back(!last && i + 1 >= row.first_supervised ? row.tokens[i + 1] : kUnsupervised);
      batch.weights_N.push_back(row.weight);
    }
  }
  return batch;
}

class MicroBatch : public ::testing::TestWithParam<std::string> {
 protected:
  MicroBatch() : model(GetParam()), adapters(*model.decoder, options(), 3) {
    for (int64_t i = 0; i < adapters.parameters.numel(); ++i) {   // B too: at zero, A would have no gradient
      adapters.parameters.data_ptr<float>()[i] = static_cast<float>(0.6 * counter_uniform(9, 1, i) - 0.3);
    }
  }
  static AdapterOptions options() {
    AdapterOptions options;
    options.rank = 4;
    options.alpha = 8;
    return options;
  }
  struct Outcome {
    double loss = 0;
    int64_t supervised = 0;
    at::Tensor gradients;
  };
  Outcome run(const std::vector<Batch>& batches, MicroBatchOptions options) {
    adapters.gradients.zero_();
    Outcome outcome;
    options.gradient_scale = 1.0 / 16;
    for (const auto& batch : batches) {
      const auto result = run_micro_batch(*model.decoder, &adapters, batch, options);
      outcome.loss += result.weighted_loss * options.gradient_scale;
      outcome.supervised += result.num_supervised;
    }
    outcome.gradients = adapters.gradients.clone();
    return outcome;
  }
  void expect_equal(const Outcome& got, const Outcome& expected, double tolerance) {
    EXPECT_EQ(got.supervised, expected.supervised);
    EXPECT_NEAR(got.loss, expected.loss, tolerance * expected.loss);
    EXPECT_GT(expected.gradients.norm().item<double>(), 1e-3);
    EXPECT_LE(at::sub(got.gradients, expected.gradients).norm().item<double>(), tolerance * expected.gradients.norm().item<double>());
  }
  test::TinyModel model;
  AdapterSet adapters;
};

TEST_P(MicroBatch, OneBatchEqualsAccumulatedRowsEqualsSharedPrefix) {
  const auto rows = some_rows();
  std::vector<Batch> separate;
  for (const auto& row : rows) separate.push_back(batch_of({row}));
  const Batch packed = batch_of(rows);
  const auto expected = run(separate, {});
  expect_equal(run({packed}, {.share_prefix = false}), expected, 1e-5);
  ASSERT_EQ(share_prefix(packed).shared_prefix, 9);
  expect_equal(run({packed}, {}), expected, 1e-5);
}

TEST_P(MicroBatch, RecomputationChangesNothing) {
  const Batch packed = batch_of(some_rows());
  expect_equal(run({packed}, {.recompute = Recompute::kLayer}), run({packed}, {}), 0);
}

TEST_P(MicroBatch, LoadBalancingIsTheSameRecomputedAndReachesTheLayersBelow) {
  if (!model.decoder->spec().experts()) return;
  const Batch packed = batch_of(some_rows());
  MicroBatchOptions kept{.load_balancing = 0.5}, recomputed{.recompute = Recompute::kLayer, .load_balancing = 0.5};
  expect_equal(run({packed}, recomputed), run({packed}, kept), 0);
  const auto with = run({packed}, kept).gradients, without = run({packed}, {.share_prefix = false}).gradients;
  // The routers' inputs are those of the layer below and of this layer's mixer; experts of the last layer come behind all routers.
  const auto& last = adapters.adapters().back();
  const auto changed = [&](const Adapter& adapter) { return !at::equal(with.narrow(0, adapter.offset_a, adapter.size_a()), without.narrow(0, adapter.offset_a, adapter.size_a())); };
  EXPECT_TRUE(changed(adapters.adapters().front()));
  EXPECT_FALSE(changed(last)) << last.module_name;
}

// Even routing: as many choices a token as there are; all shares alike.
TEST(RoutingSummary, TellsEvenFromUneven) {
  test::TinyModel model("mixtral");   // 2 layers, 4 experts, 2 a token
  RoutingSummary summary(model.decoder->spec());
  ASSERT_EQ(summary.num_figures(), 1 + 2 * 4);
  MicroBatchResult result;
  result.num_supervised = 3;
  result.load_balancing_loss = 2;
  result.expert_tokens = {5, 5, 5, 5, 20, 0, 0, 0};
  std::vector<double> figures(9);
  summary.write(result, 1.0 / 3, figures.data());
  summary.add(figures.data());
  const auto statistics = summary.statistics().value();
  EXPECT_DOUBLE_EQ(statistics.load_balancing_loss, 2);
  EXPECT_DOUBLE_EQ(statistics.largest_share, 1);
  EXPECT_DOUBLE_EQ(statistics.entropy, 0.5);
  EXPECT_FALSE(RoutingSummary(test::TinyModel("llama").decoder->spec()).statistics());
}

TEST_P(MicroBatch, TenStepsMakeTheLossFall) {
  const Batch packed = batch_of(some_rows());
  OptimizerOptions optimizer;
  AdamW adamw(optimizer, adapters.num_parameters());
  const double before = run({packed}, {}).loss;
  for (int step = 0; step < 10; ++step) {
    const auto outcome = run({packed}, {});
    adamw.step(adapters.parameters, outcome.gradients.to(at::kFloat), 5e-3);
  }
  EXPECT_LT(run({packed}, {}).loss, 0.9 * before);
}

TEST_P(MicroBatch, ExportsComputeTheSameLogits) {
  Batch batch;   // shorter than the windows: where llama.cpp computes none, a GGUF file's context ends there
  batch.add_document({3, 1, 4, 1, 5, 9, 2, 6});
  const auto logits = [&](const Decoder& decoder) { return head_logits(decoder.forward(batch), decoder.head()); };
  const auto expected = logits(*model.decoder);
  // Rounding of the merged weights; a random delta rule reads out little where keys are across queries, and the norm behind makes that large.
  const double bound = model.decoder->spec().is_recurrent() ? 1e-5 : 2e-6;
  const test::TemporaryFolder folder;
  ExportRequest request;
  request.base = model.folder.path();
  request.decoder = model.decoder.get();
  request.adapters = &adapters;
  request.options = options();
  for (const auto& [form, name] : {std::pair{"safetensors:F32", "merged"}, std::pair{"gguf:F32", "merged.gguf"}}) {
    request.format = form;
    request.out = folder / name;
    const auto result = export_model(request);
    const auto served = load_decoder(result.path, ComputeType::kFloat32);
    EXPECT_LE(at::sub(logits(*served), expected).norm().item<double>(), bound * expected.norm().item<double>()) << form;
  }
  // The base as GGUF with the adapter as a GGUF LoRA beside it, where llama.cpp would add all of it.
  const auto all = [](const auto& values, const auto& predicate) { return std::all_of(values.begin(), values.end(), predicate); };
  const bool is_served = all(adapters.adapters(), [&](const Adapter& adapter) { return all(adapter.rules, [](const WeightRule* rule) { return rule->gguf_lora; }); });
  request.format = "gguf-lora";
  request.out = folder / "lora.gguf";
  if (is_served) {
    export_model(request);
    request.adapters = nullptr;
    request.format = "gguf:F32";
    request.out = folder / "base.gguf";
    export_model(request);
    const auto base = load_decoder(folder / "base.gguf", ComputeType::kFloat32);
    const auto beside = load_gguf_adapter(*base, folder / "lora.gguf");
    EXPECT_LE(at::sub(logits(*base), expected).norm().item<double>(), bound * expected.norm().item<double>());
  } else {
    EXPECT_THROW(export_model(request), UserError);
  }
  // The GGUF file written back in the hub's layout: configuration and tensors.
  const auto gguf = load_decoder(folder / "merged.gguf", ComputeType::kFloat32);
  request = {};
  request.base = folder / "merged.gguf";
  request.decoder = gguf.get();
  request.format = "safetensors:F32";
  request.out = folder / "again";
  const auto again = load_decoder(export_model(request).path, ComputeType::kFloat32);
  EXPECT_LE(at::sub(logits(*again), expected).norm().item<double>(), bound * expected.norm().item<double>());
}

TEST_P(MicroBatch, ALossInRowBlocksIsTheSame) {
  const Batch packed = batch_of(some_rows());
  expect_equal(run({packed}, {.loss_buffer_bytes = 1}), run({packed}, {}), 1e-6);
}

INSTANTIATE_TEST_SUITE_P(Families, MicroBatch, ::testing::ValuesIn(test::every_family()));

TEST(SharePrefix, StopsWhereItMust) {
  const auto rows = some_rows();
  EXPECT_EQ(share_prefix(batch_of({rows[0]})).shared_prefix, 0) << "one document shares with nobody";
  auto early = rows;
  early[3].first_supervised = 6;   // the loss at position 5 is row 3's own
  EXPECT_EQ(share_prefix(batch_of(early)).shared_prefix, 5);
  early[3].first_supervised = 3;
  EXPECT_EQ(share_prefix(batch_of(early)).shared_prefix, 0) << "too short to pay";
  auto whole = rows;
  whole[1].tokens.resize(9);       // nothing of its own: it keeps its last token
  whole[1].first_supervised = 100;
  EXPECT_EQ(share_prefix(batch_of(whole)).shared_prefix, 8);
  Batch dropout = batch_of(rows);
  dropout.dropout_seed = 1;
  EXPECT_EQ(share_prefix(dropout).shared_prefix, 0) << "each row draws its own";
}

TEST(SharePrefix, DropsTheRepeatedTokensOnly) {
  const auto rows = some_rows();
  const Batch packed = batch_of(rows), shared = share_prefix(packed);
  EXPECT_EQ(shared.num_tokens(), packed.num_tokens() - 7 * 9);
  EXPECT_EQ(shared.labels_N.size(), shared.tokens_N.size());
  EXPECT_EQ(shared.weights_N.size(), shared.tokens_N.size());
  for (size_t d = 1; d < rows.size(); ++d) {
    EXPECT_EQ(shared.tokens_N[shared.document_offsets[d]], rows[d].tokens[9]);
    EXPECT_EQ(shared.positions_N[shared.document_offsets[d]], 9);
  }
}

}  // namespace
}  // namespace graft
