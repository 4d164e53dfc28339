// A few steps of training through the operations that a GPU runs (OperatorPath::kReference, weights with a device copy) have the losses of the
// fast CPU path.
#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/library.h>

#include "kernels/common/operator_path.h"
#include "tests/trainer/torch/few_steps.h"
#include "trainer/runs/run_state.h"

namespace graft {
namespace {

using test::Setup;
using test::some_batch;

class ReferencePath {
 public:
  ReferencePath() { set_operator_path(OperatorPath::kReference); }
  ~ReferencePath() { set_operator_path(OperatorPath::kFast); }
};

class DevicePath : public ::testing::TestWithParam<Setup> {};

TEST_P(DevicePath, TrainsAsTheFastPathDoes) {
  const auto& setup = GetParam();
  const auto fast = test::train(setup, 6);
  const ReferencePath reference;
  const auto ours = test::train(setup, 6, true);
  const double tolerance = setup.compute == ComputeType::kFloat32 ? 1e-5 : 1e-2;
  for (size_t step = 0; step < fast.losses.size(); ++step) {
    EXPECT_NEAR(ours.losses[step], fast.losses[step], tolerance * fast.losses[step]) << "step " << step + 1;
    EXPECT_NEAR(ours.norms[step], fast.norms[step], 5 * tolerance * fast.norms[step]) << "step " << step + 1;
  }
  EXPECT_LT(fast.losses.back(), fast.losses.front() - 0.3) << "these steps learn too little to show anything";
  if (setup.compute == ComputeType::kFloat32) {   // in bfloat16 Adam's first steps turn a sign of rounding into a whole step
    EXPECT_LT(at::sub(ours.parameters, fast.parameters).norm().item<double>(), 1e-3 * fast.parameters.norm().item<double>());
  }
}

INSTANTIATE_TEST_SUITE_P(Setups, DevicePath,
                         ::testing::Values(Setup{"llama", ComputeType::kFloat32, 0, Recompute::kNone}, Setup{"qwen3", ComputeType::kFloat32, 0, Recompute::kLayer},
                                           Setup{"llama", ComputeType::kFloat32, 0.3, Recompute::kLayer}, Setup{"qwen3", ComputeType::kBFloat16, 0, Recompute::kNone}));

// LibTorch registers this one in Python only.
at::Tensor index_select_meta(const at::Tensor& self, int64_t dimension, const at::Tensor& index) {
  TORCH_CHECK(index.device() == self.device(), "index_select: an index on ", index.device(), ", a tensor on ", self.device());
  auto sizes = self.sizes().vec();
  sizes.at(dimension) = index.numel();
  return at::empty(sizes, self.options());
}
TORCH_LIBRARY_IMPL(aten, Meta, library) { library.impl("index_select", index_select_meta); }

// While it lives, an operator that takes tensors of two devices fails the test, as it would on a GPU (copies may; numbers as tensors may).
class OneDevice {
 public:
  OneDevice() : handle_(at::addGlobalCallback(at::RecordFunctionCallback(check).needsInputs(true).scopes({at::RecordScope::FUNCTION}))) {}
  ~OneDevice() { at::removeCallback(handle_); }

 private:
  static std::unique_ptr<at::ObserverContext> check(const at::RecordFunction& function) {
    std::vector<at::Tensor> tensors;
    for (const auto& input : function.inputs()) {
      if (input.isTensor()) tensors.push_back(input.toTensor());
      if (input.isTensorList()) {
        for (const auto& tensor : input.toTensorVector()) tensors.push_back(tensor);
      }
    }
    std::erase_if(tensors, [](const at::Tensor& tensor) { return !tensor.defined() || tensor.dim() == 0; });
    const std::string name = function.name();
    for (const auto& tensor : tensors) {
      if (name != "aten::copy_") {
        EXPECT_EQ(tensor.device(), tensors[0].device()) << name;
      }
    }
    return nullptr;
  }
  at::CallbackHandle handle_;
};

// The meta device has shapes and no values: whatever reads the memory of a tensor fails on it as on a GPU.
TEST(DevicePathLayers, StayOnTheirDevice) {
  for (const auto compute : {ComputeType::kFloat32, ComputeType::kBFloat16}) {
    test::TinyModel model("qwen3");
    model.decoder->set_compute(compute);
    AdapterOptions options;
    options.dropout = 0.3;
    AdapterSet adapters(*model.decoder, options, 3);
    const OneDevice check;
    model.decoder->set_device(c10::kMeta);
    adapters.set_device(c10::kMeta);
    for (const bool dropout : {false, true}) {   // without it the batch shares its prefix
      const auto batch = share_prefix(some_batch(0, dropout));
      EXPECT_EQ(batch.shared_prefix > 0, !dropout);
      auto x = model.decoder->embed(batch);
      for (int64_t layer = 0; layer < model.decoder->num_layers(); ++layer) {
        const auto input = x.detach().requires_grad_(true);
        x = model.decoder->run_layer(layer, {input, {}}, batch).x_NC;
        EXPECT_TRUE(x.is_meta());
        EXPECT_EQ(x.scalar_type(), scalar_type(compute));
        std::vector<at::Tensor> inputs = {input};
        for (const auto* adapter : adapters.adapters_of_layer(layer)) inputs.insert(inputs.end(), {adapter->slot.lora_a_RC, adapter->slot.lora_b_OR});
        const auto gradients = torch::autograd::grad({x}, inputs, {at::ones_like(x)});
        for (size_t i = 0; i < inputs.size(); ++i) {
          EXPECT_TRUE(gradients[i].is_meta());
          EXPECT_EQ(gradients[i].sizes(), inputs[i].sizes());
          EXPECT_EQ(gradients[i].scalar_type(), inputs[i].scalar_type());
        }
      }
    }
    EXPECT_THROW(run_micro_batch(*model.decoder, &adapters, some_batch(0, false), {}), c10::NotImplementedError)
        << "it ends where the losses come to the CPU: they have no values";
  }
}

TEST(AdamW, ItsTwoFormsAgree) {
  OptimizerOptions options;
  options.weight_decay = 0.1;
  options.clip = 0.5;
  const auto run = [&] {
    AdamW optimizer(options, 1000);
    auto parameters = at::sin(at::arange(1000, at::kFloat));
    std::vector<double> norms;
    for (int step = 0; step < 4; ++step) norms.push_back(optimizer.step(parameters, at::cos(at::arange(1000, at::kFloat) * (step + 2)) * 0.1, 1e-2));
    EXPECT_TRUE(std::isinf(optimizer.step(parameters, at::full({1000}, INFINITY), 1e-2)));
    EXPECT_EQ(optimizer.num_steps, 4);
    return std::tuple(norms, parameters, optimizer.first_moment, optimizer.second_moment);
  };
  const auto [norms, parameters, first, second] = run();
  const ReferencePath reference;
  const auto [norms2, parameters2, first2, second2] = run();
  for (size_t i = 0; i < norms.size(); ++i) EXPECT_NEAR(norms[i], norms2[i], 1e-9 * norms[i]);
  EXPECT_TRUE(at::allclose(parameters, parameters2, 1e-6, 1e-7));
  EXPECT_TRUE(at::allclose(first, first2, 1e-6, 1e-8));
  EXPECT_TRUE(at::allclose(second, second2, 1e-6, 1e-9));
}

TEST(Checkpoint, RestoresIntoTheTensorsThatAreThere) {
  const test::TemporaryFolder folder;
  const StateTensors saved{at::arange(5, at::kFloat), at::arange(5, at::kFloat) * 2, at::arange(5, at::kFloat) * 3};
  save_checkpoint(folder.path() / "checkpoints", RunState{.step = 7, .chain = "c"}, saved);
  auto parameters = at::zeros({5});
  const auto view = parameters.narrow(0, 1, 2);
  StateTensors loaded{parameters, at::zeros({5}), at::zeros({5})};
  EXPECT_EQ(load_checkpoint(folder.path() / "checkpoints/step-000007", loaded).step, 7);
  EXPECT_TRUE(at::equal(parameters, saved.parameters));
  EXPECT_TRUE(at::equal(loaded.second_moment, saved.second_moment));
  EXPECT_TRUE(at::equal(view, saved.parameters.narrow(0, 1, 2))) << "views of the buffer must see it";
}

}  // namespace
}  // namespace graft
