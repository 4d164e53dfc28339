// Five steps on cuda:0 have the losses of five steps on the CPU. Skipped where there is no GPU that this program can use.
#include <dlfcn.h>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include "tests/trainer/torch/generation_tiny_model.h"
#include "trainer/generation/sequence_batch.h"
#include "trainer/optimizers/adamw.h"
#include "trainer/runs/cuda_module.h"
#include "trainer/runs/device_choice.h"
#include "trainer/steps/micro_batch.h"

namespace graft {
namespace {

class TrainOnGpu : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {   // before the first backward pass of this process
    const auto choice = choose_device("auto", list_cuda_devices(), "");
    if (choice.gpu) problem = load_cuda_module(GRAFT_CUDA_MODULE);
    device = choice.gpu ? c10::Device(c10::kCUDA, 0) : c10::Device(c10::kCPU);
    note = choice.note;
  }
  void SetUp() override {
    ASSERT_EQ(problem, "");
    if (device.is_cpu()) GTEST_SKIP() << note;
  }
  static inline c10::Device device = c10::kCPU;
  static inline std::string problem, note;
};

Batch some_batch(int32_t step) {
  Batch batch;
  for (int32_t r = 0; r < 5; ++r) {
    std::vector<int32_t> tokens = {7, 3, 90, 41, 12, 5};   // rows begin alike: the batch shares its prefix
    for (int32_t i = 0; i < 4 + 3 * r; ++i) tokens.push_back((step * 31 + r * 37 + i * i * 11 + 1) % 250);
    batch.add_document(tokens);
    for (size_t i = 0; i < tokens.size(); ++i) {
      batch.labels_N.push_back(i >= 6 && i + 1 < tokens.size() ? tokens[i + 1] : kUnsupervised);
      batch.row_keys_N.push_back((int64_t{r} << 24) + static_cast<int64_t>(i));
    }
  }
  return batch;
}

struct Outcome {
  std::vector<double> losses;
  at::Tensor parameters;
};

Outcome train(c10::Device device, ComputeType compute, double dropout, const char* family = "qwen3") {
  test::TinyModel model(family);
  model.decoder->set_compute(compute);
  AdapterOptions options;
  options.rank = 4;
  options.alpha = 8;
  options.dropout = dropout;
  AdapterSet adapters(*model.decoder, options, 3);
  model.decoder->set_device(device);
  adapters.set_device(device);
  AdamW optimizer({}, adapters.num_parameters(), device);
  Outcome outcome;
  for (int32_t step = 0; step < 5; ++step) {
    adapters.gradients.zero_();
    MicroBatchOptions step_options;
    step_options.gradient_scale = 1.0 / 50;
    step_options.recompute = step % 2 ? Recompute::kLayer : Recompute::kNone;
    auto batch = some_batch(step % 2);
    if (dropout > 0) batch.dropout_seed = 9;
    outcome.losses.push_back(run_micro_batch(*model.decoder, &adapters, batch, step_options).weighted_loss / 50);
    optimizer.step(adapters.parameters, adapters.gradients, 0.01);
  }
  model.decoder->set_device(c10::kCPU);
  adapters.set_device(c10::kCPU);
  outcome.losses.push_back(run_micro_batch(*model.decoder, nullptr, some_batch(0), {.want_gradient = false}).weighted_loss / 50);   // on the CPU again
  outcome.parameters = adapters.parameters.clone();
  return outcome;
}

void expect_near(const Outcome& got, const Outcome& expected, double tolerance) {
  for (size_t step = 0; step < expected.losses.size(); ++step) EXPECT_NEAR(got.losses[step], expected.losses[step], tolerance * expected.losses[step]) << step;
}

TEST_F(TrainOnGpu, HasTheLossesOfTheCpuInFloat32) {
  for (const double dropout : {0.0, 0.3}) {
    const auto there = train(device, ComputeType::kFloat32, dropout), here = train(c10::kCPU, ComputeType::kFloat32, dropout);
    expect_near(there, here, 1e-4);
    EXPECT_LT(at::sub(there.parameters, here.parameters).norm().item<double>(), 1e-2 * here.parameters.norm().item<double>());
  }
}

// Every kernel of mixtures and delta attention in whole models.
TEST_F(TrainOnGpu, HasTheLossesOfTheCpuInEveryKindOfFamily) {
  for (const char* family : {"llama", "gemma2", "bloom", "qwen3_moe", "glm4_moe", "gpt_oss", "deepseek_v3", "qwen3_next", "kimi_linear"}) {
    SCOPED_TRACE(family);
    const auto there = train(device, ComputeType::kFloat32, 0, family), here = train(c10::kCPU, ComputeType::kFloat32, 0, family);
    expect_near(there, here, std::string_view(family) == "qwen3_next" ? 1e-3 : 1e-4);   // a state carries the roundings of all tokens before
    const auto first = train(device, ComputeType::kBFloat16, 0, family), second = train(device, ComputeType::kBFloat16, 0, family);
    EXPECT_EQ(first.losses, second.losses);
    EXPECT_TRUE(at::equal(first.parameters, second.parameters));
  }
}

TEST_F(TrainOnGpu, StaysWithinTheRoundingOfBfloat16) {
  expect_near(train(device, ComputeType::kBFloat16, 0), train(c10::kCPU, ComputeType::kBFloat16, 0), 2e-2);
}

TEST_F(TrainOnGpu, RepeatsItsBits) {
  const auto first = train(device, ComputeType::kBFloat16, 0.3), second = train(device, ComputeType::kBFloat16, 0.3);
  EXPECT_EQ(first.losses, second.losses);
  EXPECT_TRUE(at::equal(first.parameters, second.parameters));
}

TEST_F(TrainOnGpu, GeneratesFromCachesWhatTheCpuDoes) {
  const std::vector<std::vector<int32_t>> prompts = {{4, 8, 15, 16, 23, 42}, {4, 8, 15, 16, 9}, {4, 8, 15, 16, 7, 7, 1, 200, 33, 5, 6}}, more = {{3}, {}, {100, 101}};
  for (const char* family : {"llama", "qwen3", "gemma2", "qwen3_moe", "gpt_oss"}) {
    SCOPED_TRACE(family);
    const test::TinyModel model(family);
    const auto states = [&](c10::Device where) {
      model.decoder->set_device(where);
      SequenceBatch sequences(*model.decoder);
      const auto first = sequences.start(prompts), second = sequences.extend(more, Keep::kAll);
      return at::cat({first, second}).cpu();
    };
    const auto expected = states(c10::kCPU), got = states(device);
    EXPECT_LE(at::sub(got, expected).norm().item<double>(), 1e-4 * expected.norm().item<double>());
  }
}

// A group of one process on NCCL sums nothing away.
TEST_F(TrainOnGpu, NcclOfOneProcess) {
  using Factory = c10d::Backend* (*)(c10d::Store*, int, int, int, int64_t);
  const auto factory = reinterpret_cast<Factory>(dlsym(RTLD_DEFAULT, "graft_nccl_backend"));
  ASSERT_NE(factory, nullptr);
  const auto store = c10::make_intrusive<c10d::HashStore>();
  const auto backend = c10::intrusive_ptr<c10d::Backend>::reclaim(factory(store.get(), 0, 1, device.index(), 60000));
  const auto values = at::arange(1000, at::TensorOptions(at::kDouble).device(device));
  std::vector<at::Tensor> tensors{values.clone()};
  backend->allreduce(tensors)->wait();
  EXPECT_TRUE(at::equal(tensors[0], values));
}

}  // namespace
}  // namespace graft
