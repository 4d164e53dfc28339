// Router and experts through their kernels: against the references and the CPU's path, values and every gradient, and what is refused.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "kernels/common/error.h"
#include "kernels/experts/experts.h"
#include "kernels/router/router.h"
#include "tests/emulator/operators/kernels_under_test.h"
#include "tests/kernels/torch/operators.h"

namespace graft {
namespace {

using at::Tensor;
using Tensors = std::vector<Tensor>;
using testing::frozen;
using testing::leaf;
using testing::random_tensor;

struct Setup {
  std::string name;
  int64_t num_rows = 60, hidden = 40, width = 24, num_experts = 6, choices = 2, rank_in = 4, rank_out = 4;
  bool fused = false, bias = false, clamped = false, input_gradient = true, weights_gradient = true;
  int64_t used_experts = 0;   // the first ones, which alone are chosen; 0: all
};

void PrintTo(const Setup& setup, std::ostream* out) { *out << setup.name; }

std::vector<Setup> setups() {
  return {{.name = "two_parts"},
          {.name = "fused", .width = 72, .fused = true, .bias = true},
          {.name = "odd_sizes", .num_rows = 37, .hidden = 33, .width = 17, .num_experts = 5, .choices = 3, .rank_in = 3, .rank_out = 5, .bias = true, .clamped = true},
          {.name = "high_tiles", .num_rows = 220, .num_experts = 4, .bias = true},
          {.name = "skewed", .num_rows = 140, .choices = 1, .used_experts = 1},
          {.name = "experts_without_tokens", .num_rows = 20, .num_experts = 30, .choices = 3, .used_experts = 4},
          {.name = "adapter_of_down_only", .rank_in = 0, .rank_out = 6},
          {.name = "adapter_of_gate_up_only", .rank_in = 6, .rank_out = 0},
          {.name = "no_adapter", .rank_in = 0, .rank_out = 0},
          {.name = "only_factors", .input_gradient = false, .weights_gradient = false},
          {.name = "one_row", .num_rows = 1},
          {.name = "no_rows", .num_rows = 0}};
}

struct Layer {
  std::vector<FrozenWeight> in_weights, out_weights;
  ExpertBank gate_up, down;
  ExpertActivation activation;
  Tensor x, chosen, weights;
  Tensors leaves;   // x, the router's weights, A and B of both banks

  Layer(const Setup& setup, at::ScalarType type, at::Device device) {
    for (int64_t e = 0; e < setup.num_experts; ++e) {
      const auto seed = static_cast<uint64_t>(e);
      if (setup.fused) in_weights.push_back(frozen(random_tensor({2 * setup.width, setup.hidden}, 100 + seed, 0.2)));
      else for (uint64_t part : {0, 1}) in_weights.push_back(frozen(random_tensor({setup.width, setup.hidden}, 200 + 2 * seed + part, 0.2)));
      out_weights.push_back(frozen(random_tensor({setup.hidden, setup.width}, 300 + seed, 0.2)));
    }
    x = random_tensor({setup.num_rows, setup.hidden}, 1).to(device, type);
    chosen = std::get<1>(random_tensor({setup.num_rows, setup.used_experts > 0 ? setup.used_experts : setup.num_experts}, 2).topk(setup.choices)).to(device);
    weights = at::softmax(random_tensor({setup.num_rows, setup.choices}, 3), -1).to(device);
    if (setup.input_gradient) leaves.push_back(x = leaf(x));
    if (setup.weights_gradient) leaves.push_back(weights = leaf(weights));
    gate_up = bank(setup, in_weights, setup.fused ? 1 : 2, 2 * setup.width, setup.hidden, setup.rank_in, 10, device);
    down = bank(setup, out_weights, 1, setup.hidden, setup.width, setup.rank_out, 20, device);
    if (setup.clamped) activation = {ExpertActivation::Kind::kClampedSwiGlu, 1.3, 0.9};
  }

  Tensors run() {
    Tensors results = {experts(x, chosen, weights, gate_up, down, activation)};
    if (leaves.empty()) return results;
    const auto dy = random_tensor(results[0].sizes().vec(), 50).to(x.device(), x.scalar_type());
    for (auto& gradient : torch::autograd::grad({results[0]}, leaves, {dy})) results.push_back(gradient);
    return results;
  }

 private:
  ExpertBank bank(const Setup& setup, const std::vector<FrozenWeight>& matrices, int64_t parts, int64_t outputs, int64_t inputs, int64_t rank, uint64_t seed, at::Device device) {
    ExpertBank bank;
    bank.num_experts = setup.num_experts;
    bank.parts = parts;
    for (const auto& weight : matrices) bank.weights.push_back(&weight);
    if (setup.bias) bank.bias_EO = random_tensor({setup.num_experts, outputs}, seed).to(device);
    if (rank == 0) return bank;
    leaves.push_back(bank.lora_a_EC = leaf(random_tensor({setup.num_experts * rank, inputs}, seed + 1, 0.3).to(device)));
    leaves.push_back(bank.lora_b_ER = leaf(random_tensor({setup.num_experts * outputs, rank}, seed + 2, 0.3).to(device)));
    bank.scale = 1.7;
    return bank;
  }
};

class ExpertsByKernels : public ::testing::TestWithParam<Setup> {
 protected:
  void compare(at::ScalarType type, double tolerance) {
    const auto& setup = GetParam();
    set_operator_path(OperatorPath::kFast);
    const auto expected = Layer(setup, at::kFloat, at::kCPU).run();   // the CPU's path
    const test::KernelsUnderTest under_test;
    const auto got = Layer(setup, type, under_test.device()).run();
    EXPECT_EQ(under_test.plain_paths(), 0);
    ASSERT_EQ(got.size(), expected.size());
    EXPECT_EQ(got[0].scalar_type(), type);
    for (size_t i = 0; i < got.size(); ++i) {
      ASSERT_EQ(got[i].sizes(), expected[i].sizes()) << i;
      if (setup.num_rows == 0) {
        EXPECT_EQ(got[i].count_nonzero().item<int64_t>(), 0) << i;
        continue;
      }
      EXPECT_GT(expected[i].norm().item<double>(), 0) << i;
      EXPECT_LE(relative_error(got[i].to(at::kCPU), expected[i]), tolerance) << (i == 0 ? "result" : "gradient ") << i;
    }
    if (setup.num_rows == 0) return;
    for (const char* kernel : {"place_experts", "expert_gate_up<", "expert_down<", "expert_combine<"}) EXPECT_NE(under_test.launches(kernel), 0) << kernel;
  }
};
INSTANTIATE_TEST_SUITE_P(Setups, ExpertsByKernels, ::testing::ValuesIn(setups()), [](const auto& info) { return info.param.name; });

TEST_P(ExpertsByKernels, Float32) { compare(at::kFloat, test::KernelsUnderTest::float32(1e-6)); }
// Near the clamp, where these random pre-activations lie often, rounding decides whether an element has a gradient at all.
TEST_P(ExpertsByKernels, Bfloat16) { compare(at::kBFloat16, GetParam().clamped ? 0.2 : 3e-2); }

TEST(ExpertsByKernelsTwice, HaveTheSameBits) {
  const test::KernelsUnderTest under_test;
  const auto first = Layer({.name = "", .bias = true}, at::kBFloat16, under_test.device()).run(), second = Layer({.name = "", .bias = true}, at::kBFloat16, under_test.device()).run();
  for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(at::equal(first[i], second[i])) << i;
}

std::string error_of(const std::function<void()>& run) {
  try {
    run();
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

// One error before any launch, that names the argument, what was expected and what came.
TEST(ExpertsByKernelsErrors, NameTheArgument) {
  const test::KernelsUnderTest under_test;
  const auto error = [&](const std::function<void(Layer&)>& damage) {
    Layer layer({.name = "", .num_rows = 5, .bias = true}, at::kFloat, under_test.device());
    damage(layer);
    return error_of([&] { layer.run(); });
  };
  using ::testing::HasSubstr;
  EXPECT_THAT(error([](Layer& layer) { layer.chosen = layer.chosen.to(at::kInt); }), HasSubstr("experts: expected chosen of Long [5, -1]"));
  EXPECT_THAT(error([](Layer& layer) { layer.chosen = layer.chosen.narrow(0, 0, 4); }), HasSubstr("as many choices as weights"));
  EXPECT_THAT(error([](Layer& layer) { layer.gate_up.bias_EO = layer.gate_up.bias_EO.narrow(1, 0, 3); }), HasSubstr("expected bias of gate_up of Float [6, 48]"));
  EXPECT_THAT(error([](Layer& layer) { layer.down.lora_a_EC = layer.down.lora_a_EC.to(at::kDouble); }), HasSubstr("expected A of down of Float [24, 24]"));
  EXPECT_THAT(error([](Layer& layer) { layer.down.lora_b_ER = layer.down.lora_b_ER.narrow(0, 0, 239); }), HasSubstr("expected B of down of Float [240, 4]"));
  EXPECT_THAT(error([](Layer& layer) { layer.gate_up.lora_b_ER = Tensor(); }), HasSubstr("expected A of gate_up and B of gate_up or neither, got one"));
  EXPECT_THAT(error([](Layer& layer) { layer.x = layer.x.narrow(1, 0, 39); }), HasSubstr("expected banks [2I, 39]"));
  if (under_test.device() == at::kCPU) {
    EXPECT_THAT(error([](Layer& layer) { layer.chosen[2][1] = 6; }), HasSubstr("expected chosen experts from 0 to 5, got 6"));
    EXPECT_THAT(error([](Layer& layer) { layer.chosen[2][1] = -1; }), HasSubstr("expected chosen experts from 0 to 5, got -1"));
    EXPECT_EQ(under_test.launches("place_experts"), 0);
  }
  EXPECT_EQ(error([](Layer&) {}), "no error");
}

TEST(ExpertsByKernelsErrors, WhatKernelsDoNotTakeIsComputedPlainly) {
  const test::KernelsUnderTest under_test;
  Layer layer({.name = "", .num_rows = 5}, at::kDouble, under_test.device());
  EXPECT_EQ(layer.run().size(), 7U);
  EXPECT_GT(under_test.plain_paths(), 0);   // also of what the reference calls
}

struct RouterSetup {
  std::string name;
  int64_t num_experts = 24;
  bool selection_bias = false, expert_scale = false;
  RouterOptions options;
};
void PrintTo(const RouterSetup& setup, std::ostream* out) { *out << setup.name; }

std::vector<RouterSetup> router_setups() {
  using Score = RouterOptions::Score;
  using GroupScore = RouterOptions::GroupScore;
  return {{.name = "mixtral", .num_experts = 8, .options = {.experts_per_token = 2, .renormalise = true}},
          {.name = "qwen2_moe", .num_experts = 60, .options = {.experts_per_token = 4}},
          {.name = "gpt_oss", .options = {.experts_per_token = 4, .score = Score::kSoftmaxOfChosen}},
          {.name = "deepseek_v2", .num_experts = 160, .options = {.experts_per_token = 6, .num_groups = 8, .groups_per_token = 3, .group_score = GroupScore::kBest, .scale = 16}},
          {.name = "deepseek_v3", .num_experts = 256, .selection_bias = true,
           .options = {.experts_per_token = 8, .score = Score::kSigmoid, .num_groups = 8, .groups_per_token = 4, .renormalise = true, .smallest_sum = 1e-20, .scale = 2.5}},
          {.name = "deepseek_v4", .selection_bias = true, .options = {.experts_per_token = 6, .score = Score::kSquareRootSoftplus, .renormalise = true, .smallest_sum = 1e-20, .scale = 1.5}},
          {.name = "pangu_pro", .num_experts = 64, .expert_scale = true, .options = {.experts_per_token = 8, .num_groups = 8, .groups_per_token = 8, .one_per_group = true}},
          {.name = "a_sum_below_the_smallest", .options = {.experts_per_token = 2, .score = Score::kSigmoid, .renormalise = true, .smallest_sum = 3}}};
}

class RouterByKernels : public ::testing::TestWithParam<RouterSetup> {};
INSTANTIATE_TEST_SUITE_P(Setups, RouterByKernels, ::testing::ValuesIn(router_setups()), [](const auto& info) { return info.param.name; });

TEST_P(RouterByKernels, EqualsTheReference) {
  const auto& setup = GetParam();
  const auto run = [&](at::Device device, bool reference) {
    auto logits = leaf(random_tensor({37, setup.num_experts}, 5, 2).to(device));
    const auto bias = setup.selection_bias ? random_tensor({setup.num_experts}, 6, 0.3).to(device) : Tensor(), scale = setup.expert_scale ? (random_tensor({setup.num_experts}, 7, 0.2) + 1).to(device) : Tensor();
    const auto routed = (reference ? route_reference : route)(setup.options, logits, bias, scale);
    const auto weights = random_tensor({37, setup.options.experts_per_token}, 8).to(device);
    return Tensors{routed.chosen_NK, routed.weights_NK, torch::autograd::grad({routed.weights_NK}, {logits}, {weights})[0]};
  };
  const auto expected = run(at::kCPU, true);
  const test::KernelsUnderTest under_test;
  const auto got = run(under_test.device(), false);
  EXPECT_EQ(under_test.plain_paths(), 0);
  EXPECT_NE(under_test.launches("route_tokens<"), 0);
  EXPECT_TRUE(at::equal(got[0].to(at::kCPU), expected[0]));
  for (size_t i = 1; i < 3; ++i) EXPECT_LE(relative_error(got[i].to(at::kCPU), expected[i]), 1e-6) << i;
}

TEST(RouterErrors, NameTheArgument) {
  const test::KernelsUnderTest under_test;
  const auto error = [&](const RouterOptions& options, int64_t experts = 12, const std::function<void(Tensor&, Tensor&)>& damage = [](Tensor&, Tensor&) {}) {
    Tensor logits = random_tensor({3, experts}, 1).to(under_test.device()), bias = at::zeros({experts}, logits.options());
    damage(logits, bias);
    return error_of([&] { route(options, logits, bias); });
  };
  using ::testing::HasSubstr;
  EXPECT_THAT(error({.experts_per_token = 13}), HasSubstr("router: expected experts_per_token from 1 to 12, the number of experts, got 13"));
  EXPECT_THAT(error({.experts_per_token = 0}), HasSubstr("from 1 to 12, the number of experts, got 0"));
  EXPECT_THAT(error({.num_groups = 5}), HasSubstr("router: expected num_groups to divide 12, the number of experts, got 5"));
  EXPECT_THAT(error({.num_groups = 0}), HasSubstr("expected num_groups to divide 12"));
  EXPECT_THAT(error({.num_groups = 4, .groups_per_token = 5}), HasSubstr("expected groups_per_token from 1 to 4, the number of groups, got 5"));
  EXPECT_THAT(error({.experts_per_token = 7, .num_groups = 4, .groups_per_token = 2}), HasSubstr("expected experts_per_token of at most 6, the experts that the best groups offer, got 7"));
  EXPECT_THAT(error({.experts_per_token = 3, .num_groups = 4, .groups_per_token = 4, .one_per_group = true}), HasSubstr("expected experts_per_token to be 4, the experts that groups offer, got 3"));
  EXPECT_THAT(error({}, 12, [](Tensor&, Tensor& bias) { bias = bias.narrow(0, 0, 11); }), HasSubstr("router: expected selection_bias of Float [12]"));
  EXPECT_THAT(error({}, 12, [](Tensor& logits, Tensor&) { logits = logits.flatten(); }), HasSubstr("router: expected logits [N, E] of a floating type"));
  if (under_test.device() == at::kCPU) {
    EXPECT_THAT(error({}, 12, [](Tensor& logits, Tensor&) { logits[1][2] = NAN; }), HasSubstr("router: expected finite logits, got an infinite one or NaN"));
    EXPECT_EQ(under_test.launches("route_tokens<"), 0);
  }
  EXPECT_EQ(error({.experts_per_token = 12}), "no error");
}

TEST(RouterErrors, WhatKernelsDoNotTakeIsComputedPlainly) {
  const test::KernelsUnderTest under_test;
  const auto routed = route({.experts_per_token = 40}, random_tensor({3, 64}, 1).to(under_test.device()));
  EXPECT_EQ(routed.chosen_NK.size(1), 40);
  EXPECT_EQ(under_test.plain_paths(), 1);
}

}  // namespace
}  // namespace graft
