#include "kernels/lora_linear/lora_linear.h"

#include <torch/csrc/autograd/autograd.h>

#include "kernels/common/error.h"
#include "tests/kernels/torch/operators.h"

namespace graft {
namespace {

using testing::frozen;
using testing::leaf;
using testing::random_tensor;

struct LinearSetup {
  LinearPrologue::Kind prologue;
  bool bias, adapters;
  double dropout;
  int64_t num_rows, inputs;
  std::vector<int64_t> outputs;
  bool merged = false;
  bool whole = false;   // all parts, or where there are adapters every second one, are trained themselves
};

void PrintTo(const LinearSetup& setup, std::ostream* out) {
  *out << "prologue " << static_cast<int>(setup.prologue) << " bias " << setup.bias << " adapters " << setup.adapters << " dropout " << setup.dropout
       << (setup.merged ? " merged" : "") << (setup.whole ? " whole" : "") << " [" << setup.num_rows << ", " << setup.inputs << "]";
}

struct Result {
  at::Tensor y;
  std::vector<at::Tensor> gradients;   // x, then A and B of each part
};

class LoraLinear : public ::testing::TestWithParam<LinearSetup> {
 protected:
  // Everything from the same seeds, once through the operator and once through the specification.
  Result run(bool reference, at::ScalarType type) {
    const auto& setup = GetParam();
    LinearPrologue prologue;
    prologue.kind = setup.prologue;
    const int64_t width = prologue.gated() ? 2 * setup.inputs : setup.inputs;
    auto x = leaf(random_tensor({setup.num_rows, width}, 1).to(type));
    prologue.norm_weight_C = random_tensor({setup.inputs}, 2) + 1;
    prologue.epsilon = 1e-3;
    std::vector<FrozenWeight> weights;
    std::vector<LinearPart> parts(setup.outputs.size());
    std::vector<at::Tensor> inputs = {x};
    std::vector<at::Tensor> matrices;
    for (size_t i = 0; i < parts.size(); ++i) {
      matrices.push_back(random_tensor({setup.outputs[i], setup.inputs}, 10 + i, 0.2));
      weights.push_back(frozen(matrices[i]));
    }
    for (size_t i = 0; i < parts.size(); ++i) {
      parts[i].weight = &weights[i];
      if (setup.bias) parts[i].bias_O = random_tensor({setup.outputs[i]}, 20 + i);
      if (setup.whole && (!setup.adapters || i % 2 == 1)) {
        inputs.push_back(parts[i].whole_OC = leaf(matrices[i].clone()));
        continue;
      }
      if (!setup.adapters) continue;
      parts[i].lora_a_RC = leaf(random_tensor({3 + static_cast<int64_t>(i), setup.inputs}, 30 + i, 0.3));
      parts[i].lora_b_OR = leaf(random_tensor({setup.outputs[i], 3 + static_cast<int64_t>(i)}, 40 + i, 0.3));
      parts[i].scale = 1.7;
      parts[i].merged = setup.merged;
      inputs.push_back(parts[i].lora_a_RC);
      inputs.push_back(parts[i].lora_b_OR);
    }
    LoraDropout dropout;
    dropout.probability = setup.dropout;
    dropout.key = 99;
    dropout.row_keys_N = at::arange(setup.num_rows) * 7 + 3;
    Result result;
    result.y = reference ? lora_linear_reference(x, prologue, parts, dropout) : lora_linear(x, prologue, parts, dropout);
    const auto dy = random_tensor({setup.num_rows, result.y.size(1)}, 50).to(result.y.scalar_type());
    result.gradients = torch::autograd::grad({result.y}, inputs, {dy});
    return result;
  }
};

TEST_P(LoraLinear, EqualsTheSpecificationInFloat32) {
  const auto ours = run(false, at::kFloat), expected = run(true, at::kFloat);
  EXPECT_LT(relative_error(ours.y, expected.y), 2e-6);
  for (size_t i = 0; i < expected.gradients.size(); ++i) EXPECT_LT(relative_error(ours.gradients[i], expected.gradients[i]), 5e-6) << "gradient " << i;
}

TEST_P(LoraLinear, Bfloat16StaysWithinItsRounding) {
  const auto expected = run(true, at::kFloat);
  for (const bool products : {false, true}) {
    const testing::MultipliesInBf16 chosen(products);
    const auto ours = run(false, at::kBFloat16);
    EXPECT_EQ(ours.y.scalar_type(), at::kBFloat16);
    EXPECT_LT(relative_error(ours.y, expected.y), 2e-2) << products;
    for (size_t i = 0; i < expected.gradients.size(); ++i) {
      EXPECT_LT(relative_error(ours.gradients[i], expected.gradients[i]), 3e-2) << "gradient " << i << (products ? ", products in bfloat16" : "");
    }
  }
}

constexpr auto kNone = LinearPrologue::Kind::kNone, kNorm = LinearPrologue::Kind::kRmsNorm, kGated = LinearPrologue::Kind::kSwiGlu;
constexpr auto kGeluGated = LinearPrologue::Kind::kGeluTanhGated, kGelu = LinearPrologue::Kind::kGeluTanh;
INSTANTIATE_TEST_SUITE_P(Shapes, LoraLinear,
                         ::testing::Values(LinearSetup{kNone, false, false, 0, 5, 7, {9}}, LinearSetup{kNone, true, true, 0, 33, 17, {8, 3, 11}},
                                           LinearSetup{kNorm, true, true, 0, 37, 24, {12, 6, 6}}, LinearSetup{kNorm, false, true, 0, 1, 64, {64}},
                                           LinearSetup{kGated, false, true, 0, 19, 21, {15}}, LinearSetup{kGated, true, true, 0.25, 40, 16, {10}},
                                           LinearSetup{kNorm, false, true, 0.5, 65, 33, {5, 5}}, LinearSetup{kGeluGated, true, true, 0, 19, 21, {15}},
                                           LinearSetup{kGelu, true, true, 0.25, 21, 18, {7, 4}}, LinearSetup{kNone, true, true, 0, 33, 17, {8, 3, 11}, true},
                                           LinearSetup{kNorm, true, true, 0, 37, 24, {12, 6, 6}, true}, LinearSetup{kGated, false, true, 0, 19, 21, {15}, true},
                                           LinearSetup{kGeluGated, true, true, 0, 5, 300, {270}, true}, LinearSetup{kGelu, false, true, 0, 21, 18, {7, 4}, true},
                                           LinearSetup{kNorm, true, false, 0, 37, 24, {12, 6, 6}, false, true}, LinearSetup{kGated, false, false, 0, 19, 21, {15}, false, true},
                                           LinearSetup{kNone, false, true, 0, 33, 70, {8, 3, 65}, false, true}, LinearSetup{kGelu, true, true, 0.25, 21, 18, {7, 4}, false, true}));

// A weight that holds the adapter already, by its formula in double: y = p W^T + bias, dp = dy W, dB = s dy^T (p A^T), dA = s B^T dy^T p.
TEST(MergedLoraLinear, IsTheWeightAloneWithTheAdaptersGradients) {
  const int64_t rows = 23, inputs = 64;
  const std::vector<int64_t> outputs = {20, 40};
  const auto x = leaf(random_tensor({rows, inputs}, 1));
  std::vector<FrozenWeight> weights;
  std::vector<LinearPart> parts(2);
  std::vector<at::Tensor> matrices, leaves = {x}, expected_y;
  for (size_t i = 0; i < 2; ++i) {
    matrices.push_back(random_tensor({outputs[i], inputs}, 10 + i, 0.2));
    weights.push_back(frozen(matrices[i]));
  }
  const auto p = x.detach().to(at::kDouble);
  for (size_t i = 0; i < 2; ++i) {
    parts[i] = {&weights[i], random_tensor({outputs[i]}, 20 + i), leaf(random_tensor({3, inputs}, 30 + i)), leaf(random_tensor({outputs[i], 3}, 40 + i)), 0.7, /*merged=*/true};
    leaves.insert(leaves.end(), {parts[i].lora_a_RC, parts[i].lora_b_OR});
    expected_y.push_back(at::matmul(p, matrices[i].to(at::kDouble).t()) + parts[i].bias_O.to(at::kDouble));
  }
  const auto dy = random_tensor({rows, 60}, 50);
  for (const auto& function : {lora_linear, lora_linear_reference}) {
    const auto y = function(x, {}, parts, {});
    EXPECT_LT(relative_error(y, at::cat(expected_y, 1)), 1e-6);
    const auto gradients = torch::autograd::grad({y}, leaves, {dy});
    auto dx = at::zeros_like(p);
    for (size_t i = 0; i < 2; ++i) {
      const auto dy_part = dy.narrow(1, i == 0 ? 0 : outputs[0], outputs[i]).to(at::kDouble);
      const auto a = parts[i].lora_a_RC.detach().to(at::kDouble), b = parts[i].lora_b_OR.detach().to(at::kDouble);
      dx += at::matmul(dy_part, matrices[i].to(at::kDouble));
      EXPECT_LT(relative_error(gradients[1 + 2 * i], 0.7 * at::matmul(at::matmul(b.t(), dy_part.t()), p)), 2e-6) << "A of part " << i;
      EXPECT_LT(relative_error(gradients[2 + 2 * i], 0.7 * at::matmul(dy_part.t(), at::matmul(p, a.t()))), 2e-6) << "B of part " << i;
    }
    EXPECT_LT(relative_error(gradients[0], dx), 1e-6);
  }
  parts[1].merged = false;
  EXPECT_THROW(lora_linear(x, {}, parts), UserError);
  parts[1].merged = true;
  EXPECT_THROW(lora_linear(x, {}, parts, {0.1, 5, at::arange(rows)}), UserError);
}

TEST(LoraLinearErrors, NamesTheWrongWidth) {
  const auto weight = frozen(at::zeros({4, 5}));
  LinearPart part;
  part.weight = &weight;
  EXPECT_THROW(lora_linear(at::zeros({2, 6}), {}, {part}), std::runtime_error);
}

TEST(LoraDropout, KeepsTheAverage) {
  LoraDropout dropout;
  dropout.probability = 0.3;
  dropout.key = 5;
  double sum = 0;
  for (int64_t row = 0; row < 200; ++row) {
    for (int64_t column = 0; column < 200; ++column) sum += dropout_factor(dropout, row, column);
  }
  EXPECT_NEAR(sum / 40000, 1.0, 0.02);
}

}  // namespace
}  // namespace graft
