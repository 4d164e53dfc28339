// lora_linear through its kernels against its reference: values and every gradient, prologues, dropout, and what is refused.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "kernels/common/error.h"
#include "kernels/lora_linear/lora_linear.h"
#include "tests/emulator/operators/kernels_under_test.h"
#include "tests/kernels/torch/operators.h"

namespace graft {
namespace {

using at::Tensor;
using testing::frozen;
using testing::leaf;
using testing::random_tensor;

struct Setup {
  std::string name;
  LinearPrologue::Kind prologue = LinearPrologue::Kind::kNone;
  int64_t num_rows = 70, inputs = 40;
  std::vector<int64_t> outputs = {48}, ranks = {16};   // rank 0: no adapter
  bool bias = false;
  double dropout = 0;
  bool input_gradient = true;
  bool merged = false;
};

void PrintTo(const Setup& setup, std::ostream* out) { *out << setup.name; }

std::vector<Setup> setups() {
  using Kind = LinearPrologue::Kind;
  return {{.name = "plain"},
          {.name = "queries_keys_values", .prologue = Kind::kRmsNorm, .outputs = {48, 24, 24}, .ranks = {5, 8, 20}, .bias = true, .dropout = 0.25},
          {.name = "odd_sizes", .prologue = Kind::kSwiGlu, .num_rows = 33, .inputs = 21, .outputs = {15, 7}, .ranks = {3, 4}, .bias = true},
          {.name = "gelu_gated", .prologue = Kind::kGeluTanhGated, .num_rows = 1},
          {.name = "gelu", .prologue = Kind::kGeluTanh, .dropout = 0.5},
          {.name = "some_without_adapter", .outputs = {16, 24, 8}, .ranks = {0, 6, 0}, .bias = true},
          {.name = "no_adapters", .outputs = {16, 24}, .ranks = {0, 0}},
          {.name = "first_layer", .outputs = {16, 24}, .ranks = {4, 4}, .dropout = 0.1, .input_gradient = false},
          {.name = "large_rank", .outputs = {24}, .ranks = {150}},
          {.name = "merged", .prologue = Kind::kRmsNorm, .outputs = {48, 24, 24}, .ranks = {5, 0, 20}, .bias = true, .merged = true},
          {.name = "merged_without_bias", .outputs = {16, 24}, .ranks = {4, 4}, .merged = true},
          {.name = "no_rows", .num_rows = 0}};
}

struct Layer {
  std::vector<FrozenWeight> weights;
  std::vector<LinearPart> parts;
  LinearPrologue prologue;
  LoraDropout dropout;
  Tensor x;
  std::vector<Tensor> leaves;   // x, then A and B of each part

  Layer(const Setup& setup, at::ScalarType type, at::Device device) : parts(setup.outputs.size()) {
    prologue.kind = setup.prologue;
    prologue.norm_weight_C = (random_tensor({setup.inputs}, 2) + 1).to(device);
    prologue.epsilon = 1e-3;
    x = random_tensor({setup.num_rows, prologue.gated() ? 2 * setup.inputs : setup.inputs}, 1).to(device, type);
    if (setup.input_gradient) leaves.push_back(x = leaf(x));
    for (size_t i = 0; i < parts.size(); ++i) weights.push_back(frozen(random_tensor({setup.outputs[i], setup.inputs}, 10 + i, 0.2)));
    for (size_t i = 0; i < parts.size(); ++i) {
      parts[i].weight = &weights[i];
      if (setup.bias && i != 1) parts[i].bias_O = random_tensor({setup.outputs[i]}, 20 + i).to(device);
      if (setup.ranks[i] == 0) continue;
      leaves.push_back(parts[i].lora_a_RC = leaf(random_tensor({setup.ranks[i], setup.inputs}, 30 + i, 0.3).to(device)));
      leaves.push_back(parts[i].lora_b_OR = leaf(random_tensor({setup.outputs[i], setup.ranks[i]}, 40 + i, 0.3).to(device)));
      parts[i].scale = 1.7 - static_cast<double>(i);
      parts[i].merged = setup.merged;
    }
    dropout = {setup.dropout, 99, (at::arange(setup.num_rows) * 7 + 3).to(device)};
  }

  // y, then the gradients.
  template <typename Function>
  std::vector<Tensor> run(const Function& function) {
    std::vector<Tensor> results = {function(x, prologue, parts, dropout)};
    if (leaves.empty()) return results;
    const auto weights_of_sum = random_tensor(results[0].sizes().vec(), 50).to(x.device(), results[0].scalar_type());
    for (auto& gradient : torch::autograd::grad({results[0]}, leaves, {weights_of_sum})) results.push_back(gradient);
    return results;
  }
};

class LoraLinearByKernels : public ::testing::TestWithParam<Setup> {
 protected:
  void compare(at::ScalarType type, double tolerance) {
    const auto& setup = GetParam();
    Layer reference(setup, at::kFloat, at::kCPU);
    const auto expected = reference.run(lora_linear_reference);
    const test::KernelsUnderTest under_test;
    Layer ours(setup, type, under_test.device());
    const auto got = ours.run(lora_linear);
    EXPECT_EQ(under_test.plain_paths(), 0);
    ASSERT_EQ(got.size(), expected.size());
    EXPECT_EQ(got[0].scalar_type(), type);
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(got[i].sizes(), expected[i].sizes()) << i;
      EXPECT_TRUE(expected[i].norm().item<double>() > 0 || setup.num_rows == 0) << i;
      EXPECT_TRUE(setup.num_rows == 0 || relative_error(got[i].to(at::kCPU), expected[i]) <= tolerance) << (i == 0 ? "result" : "gradient ") << i << ": " << relative_error(got[i].to(at::kCPU), expected[i]);
      EXPECT_EQ(got[i].isnan().sum().item<int64_t>(), 0) << i;
    }
    const bool adapted = std::any_of(setup.ranks.begin(), setup.ranks.end(), [](int64_t rank) { return rank > 0; });
    if (setup.num_rows == 0 || !adapted) return;
    for (const char* kernel : {"lora_factors", "lora_shrink<", "lora_expand_backward<", "lora_shrink_backward<"}) EXPECT_NE(under_test.launches(kernel), 0) << kernel;
    EXPECT_EQ(under_test.launches("lora_expand<") != 0, !setup.merged || setup.bias);   // into a merged layer nothing but biases is added
  }
};
INSTANTIATE_TEST_SUITE_P(Setups, LoraLinearByKernels, ::testing::ValuesIn(setups()), [](const auto& info) { return info.param.name; });

TEST_P(LoraLinearByKernels, Float32) { compare(at::kFloat, 3e-6); }
TEST_P(LoraLinearByKernels, Bfloat16) { compare(at::kBFloat16, 2e-2); }

// One error before any launch, that names the argument, what was expected and what came.
TEST(LoraLinearByKernelsErrors, NameTheArgument) {
  const test::KernelsUnderTest under_test;
  const auto error_of = [&](const std::function<void(Layer&)>& damage) {
    Layer layer({.name = "", .outputs = {16, 24}, .ranks = {4, 4}, .bias = true, .dropout = 0.2}, at::kFloat, under_test.device());
    damage(layer);
    try {
      lora_linear(layer.x, layer.prologue, layer.parts, layer.dropout);
    } catch (const UserError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  using ::testing::HasSubstr;
  EXPECT_THAT(error_of([](Layer& layer) { layer.parts[1].lora_a_RC = layer.parts[1].lora_a_RC.to(at::kDouble); }), HasSubstr("lora_linear: expected A of part 1 as Float [4, 40] on "));
  EXPECT_THAT(error_of([](Layer& layer) { layer.parts[1].lora_a_RC = layer.parts[1].lora_a_RC.narrow(1, 0, 39); }), HasSubstr("got Float [4, 39]"));
  EXPECT_THAT(error_of([](Layer& layer) { layer.parts[0].lora_b_OR = layer.parts[0].lora_b_OR.t(); }), HasSubstr("expected B of part 0 as Float [16, 4]"));
  EXPECT_THAT(error_of([](Layer& layer) { layer.parts[0].bias_O = layer.parts[0].bias_O.narrow(0, 0, 3); }), HasSubstr("expected bias of part 0 as Float [16]"));
  EXPECT_THAT(error_of([](Layer& layer) { layer.parts[0].lora_b_OR = Tensor(); }), HasSubstr("expected both factors of part 0 or none, got one"));
  EXPECT_THAT(error_of([](Layer& layer) { layer.dropout.row_keys_N = layer.dropout.row_keys_N.narrow(0, 0, 5); }), HasSubstr("expected the row keys of dropout of part 0 as Long [70]"));
  EXPECT_THAT(error_of([](Layer& layer) { layer.dropout.probability = 1; }), HasSubstr("expected a dropout of at least 0 and below 1, got 1"));
  EXPECT_THAT(error_of([](Layer& layer) { layer.x = layer.x.narrow(1, 0, 39); }), HasSubstr("lora_linear: expected a weight of 39 columns, got 40"));
  EXPECT_EQ(error_of([](Layer&) {}), "no error");
}

TEST(LoraLinearByKernelsErrors, MorePartsThanAKernelTakesAreComputedPlainly) {
  const test::KernelsUnderTest under_test;
  Layer layer({.name = "", .num_rows = 3, .outputs = std::vector<int64_t>(9, 8), .ranks = std::vector<int64_t>(9, 2)}, at::kFloat, under_test.device());
  EXPECT_EQ(layer.run(lora_linear).size(), 20U);
  EXPECT_EQ(under_test.plain_paths(), 1);
}

}  // namespace
}  // namespace graft
