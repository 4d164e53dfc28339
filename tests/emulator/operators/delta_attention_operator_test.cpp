// Delta attention through its launchers and kernels against the CPU's operator, values and gradients.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "kernels/common/error.h"
#include "kernels/delta_attention/delta_attention.h"
#include "tests/emulator/operators/kernels_under_test.h"

namespace graft {
namespace {

using Tensors = std::vector<at::Tensor>;
using Options = DeltaAttentionOptions;

at::Tensor random(at::IntArrayRef sizes, uint64_t seed) { return at::randn(sizes, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions(at::kFloat)); }

Options options_of(int64_t key_heads, int64_t heads, int64_t key_size, int64_t value_size, bool channel_decay, Options::Gate gate) {
  Options options;
  options.num_key_heads = key_heads;
  options.num_value_heads = heads;
  options.key_size = key_size;
  options.value_size = value_size;
  options.convolution_CK = random({options.channels(), 4}, 1) * 0.5;
  options.decay_rate_H = random({heads}, 2).exp() * 0.3;
  options.decay_bias_A = random({heads * (channel_decay ? key_size : 1)}, 3);
  options.norm_weight_V = random({value_size}, 4) + 1;
  options.norm_epsilon = 1e-3;
  options.gate = gate;
  return options;
}

Tensors inputs_of(const Options& options, int64_t tokens, at::ScalarType type) {
  return {random({tokens, options.channels()}, 5).to(type), random({tokens, options.decay_bias_A.numel()}, 6).to(type), random({tokens, options.num_value_heads}, 7).to(type),
          random({tokens, options.num_value_heads * options.value_size}, 8).to(type)};
}

// The result and the gradients of all inputs.
Tensors results_of(Options options, const Tensors& inputs, const std::vector<int32_t>& offsets, at::Device device, at::ScalarType type) {
  for (auto* table : {&options.convolution_CK, &options.decay_rate_H, &options.decay_bias_A, &options.norm_weight_V}) *table = table->to(device);
  Tensors leaves;
  for (const auto& input : inputs) leaves.push_back(input.to(device, type).clone().requires_grad_());
  const auto out = delta_attention({leaves[0], leaves[1], leaves[2], leaves[3]}, options, offsets);
  const auto gradient = at::sin(at::arange(out.numel(), at::kDouble)).view(out.sizes()).to(device, type);
  Tensors all = {out.detach()};
  for (const auto& of_input : torch::autograd::grad({out}, leaves, {gradient})) all.push_back(of_input);
  return all;
}

class DeltaAttentionIn : public testing::TestWithParam<at::ScalarType> {
 protected:
  void compare(const Options& options, const std::vector<int32_t>& offsets) const {
    const auto inputs = inputs_of(options, offsets.back(), GetParam());
    const auto expected = results_of(options, inputs, offsets, at::kCPU, at::kFloat);
    const test::KernelsUnderTest under_test;
    const auto got = results_of(options, inputs, offsets, under_test.device(), GetParam());
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(got[i].scalar_type(), GetParam()) << i;
      const auto wanted = expected[i].to(at::kDouble), miss = got[i].to(at::kCPU, at::kDouble) - wanted;
      EXPECT_LE(miss.norm().item<double>(), (GetParam() == at::kFloat ? 3e-6 : 1e-2) * wanted.norm().item<double>()) << "result or gradient " << i;
    }
    EXPECT_EQ(under_test.plain_paths(), 0);
    for (const auto* kernel : {"delta_rows<", "delta_rows_backward<", "delta_chunk_states<", "delta_scan<", "delta_outputs<", "delta_outputs_backward<", "delta_gradients<"}) {
      EXPECT_NE(under_test.launches(kernel), 0) << kernel;
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Types, DeltaAttentionIn, testing::Values(at::kFloat, at::kBFloat16), [](const auto& info) { return std::string(c10::toString(info.param)); });

TEST_P(DeltaAttentionIn, WithADecayOfAHead) { compare(options_of(2, 4, 16, 24, false, Options::Gate::kSilu), {0, 70, 71, 71, 90}); }
TEST_P(DeltaAttentionIn, WithADecayOfAChannel) { compare(options_of(2, 2, 24, 16, true, Options::Gate::kSigmoid), {0, 40, 41, 41, 60}); }
TEST_P(DeltaAttentionIn, WithTiledHeads) {
  auto options = options_of(2, 4, 8, 8, false, Options::Gate::kSilu);
  options.tiled_value_heads = true;
  compare(options, {0, 9});
}

TEST(DeltaAttentionByKernels, HasNothingToDoForNoTokens) {
  const auto options = options_of(1, 1, 8, 8, false, Options::Gate::kSilu);
  const test::KernelsUnderTest under_test;
  const auto results = results_of(options, inputs_of(options, 0, at::kFloat), {0}, under_test.device(), at::kFloat);
  EXPECT_EQ(results[0].size(0), 0);
  EXPECT_EQ(results[1].numel(), 0);
}

TEST(DeltaAttentionByKernels, TakesThePlainPathWhereNoKernelIs) {
  const auto plain = [](const Options& options, at::ScalarType type) {
    const test::KernelsUnderTest under_test;
    results_of(options, inputs_of(options, 5, type), {0, 5}, under_test.device(), type);
    return under_test.plain_paths();
  };
  EXPECT_EQ(plain(options_of(1, 1, 6, 8, false, Options::Gate::kSilu), at::kFloat), 1);
  EXPECT_EQ(plain(options_of(1, 1, 8, 136, false, Options::Gate::kSilu), at::kFloat), 1);
  EXPECT_EQ(plain(options_of(1, 1, 8, 8, false, Options::Gate::kSilu), at::kHalf), 1);
  EXPECT_EQ(plain(options_of(1, 1, 8, 8, false, Options::Gate::kSilu), at::kFloat), 0);
}

TEST(DeltaAttentionByKernels, RefusesTablesThatItCannotRead) {
  const auto message = [](const std::function<void(Options&)>& spoil) -> std::string {
    auto options = options_of(1, 2, 8, 8, false, Options::Gate::kSilu);
    spoil(options);
    const test::KernelsUnderTest under_test;
    try {
      results_of(options, inputs_of(options, 5, at::kFloat), {0, 5}, under_test.device(), at::kFloat);
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(message([](Options& o) { o.decay_rate_H = at::ones({3}); }).find("the decays' rates of Float [2]"), std::string::npos);
  EXPECT_NE(message([](Options& o) { o.norm_weight_V = at::ones({8}, at::kDouble); }).find("the norm's weight of Float [8]"), std::string::npos);
  EXPECT_NE(message([](Options& o) { o.convolution_CK = o.convolution_CK.to(at::kDouble); }).find("the convolution of Float"), std::string::npos);
}

}  // namespace
}  // namespace graft
