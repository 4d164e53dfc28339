#include "kernels/experts/experts.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include "kernels/common/operator_path.h"
#include "kernels/quantized/small_floats.h"
#include "tests/kernels/torch/operators.h"

namespace graft {
namespace {

using testing::frozen;
using testing::leaf;
using testing::random_tensor;

struct ExpertSetup {
  int64_t num_rows, hidden, width, num_experts, choices, rank;
  bool fused = false, bias = false, clamped = false, quantised = false;
  int64_t unused_experts = 0;   // the last ones, which no token chooses
  bool merged = false;
};

void PrintTo(const ExpertSetup& setup, std::ostream* out) {
  *out << "[" << setup.num_rows << ", " << setup.hidden << "] width " << setup.width << " experts " << setup.num_experts << "/" << setup.choices << " rank "
       << setup.rank << " fused " << setup.fused << " bias " << setup.bias << " clamped " << setup.clamped << " quantised " << setup.quantised << " merged " << setup.merged;
}

// Q8_0: blocks of 32 with a half-precision scale.
FrozenWeight q8_0(const at::Tensor& values) {
  auto bytes = std::make_shared<std::vector<std::byte>>();
  const auto rounded = (values * 64).round().clamp(-127, 127).to(at::kChar).contiguous();
  const uint16_t scale = float_to_half(1.0f / 64);
  for (int64_t block = 0; block < values.numel() / 32; ++block) {
    const auto* s = reinterpret_cast<const std::byte*>(&scale);
    bytes->insert(bytes->end(), s, s + 2);
    const auto* q = reinterpret_cast<const std::byte*>(rounded.const_data_ptr<int8_t>()) + block * 32;
    bytes->insert(bytes->end(), q, q + 32);
  }
  return FrozenWeight(TensorType::kQ8_0, values.size(0), values.size(1), bytes->data(), bytes);
}

using Tensors = std::vector<at::Tensor>;   // y, then the gradients of x, the router's weights, and A and B of both banks

class Experts : public ::testing::TestWithParam<ExpertSetup> {
 protected:
  Tensors run(bool reference, at::ScalarType type) {
    const auto& setup = GetParam();
    const auto matrix = [&](int64_t rows, int64_t columns, uint64_t seed) {
      const auto values = random_tensor({rows, columns}, seed, 0.3);
      return setup.quantised ? q8_0(values) : frozen(values);
    };
    std::vector<FrozenWeight> in_weights, out_weights;
    for (int64_t e = 0; e < setup.num_experts; ++e) {
      if (setup.fused) in_weights.push_back(matrix(2 * setup.width, setup.hidden, 100 + e));
      else for (uint64_t part : {0, 1}) in_weights.push_back(matrix(setup.width, setup.hidden, 200 + 2 * e + part));
      out_weights.push_back(matrix(setup.hidden, setup.width, 300 + e));
    }
    auto x = leaf(random_tensor({setup.num_rows, setup.hidden}, 1).to(type));
    const auto scores = random_tensor({setup.num_rows, setup.num_experts - setup.unused_experts}, 2);
    const auto chosen = std::get<1>(scores.topk(setup.choices));
    auto router = leaf(at::softmax(random_tensor({setup.num_rows, setup.choices}, 3), -1));
    Tensors inputs = {x, router};
    const auto bank = [&](const std::vector<FrozenWeight>& weights, int64_t parts, int64_t outputs, int64_t columns, uint64_t seed) {
      ExpertBank bank;
      bank.num_experts = setup.num_experts;
      bank.parts = parts;
      for (const auto& weight : weights) bank.weights.push_back(&weight);
      if (setup.bias) bank.bias_EO = random_tensor({setup.num_experts, outputs}, seed);
      if (setup.rank == 0) return bank;
      bank.lora_a_EC = leaf(random_tensor({setup.num_experts * setup.rank, columns}, seed + 1, 0.3));
      bank.lora_b_ER = leaf(random_tensor({setup.num_experts * outputs, setup.rank}, seed + 2, 0.3));
      bank.scale = 1.7;
      bank.merged = setup.merged;
      inputs.push_back(bank.lora_a_EC);
      inputs.push_back(bank.lora_b_ER);
      return bank;
    };
    const auto gate_up = bank(in_weights, setup.fused ? 1 : 2, 2 * setup.width, setup.hidden, 10), down = bank(out_weights, 1, setup.hidden, setup.width, 20);
    ExpertActivation activation;
    if (setup.clamped) activation = {ExpertActivation::Kind::kClampedSwiGlu, 1.3, 0.9};
    const auto y = reference ? experts_reference(x, chosen, router, gate_up, down, activation) : experts(x, chosen, router, gate_up, down, activation);
    const auto dy = random_tensor({setup.num_rows, setup.hidden}, 50).to(y.scalar_type());
    Tensors results = {y.detach()};
    for (auto& gradient : torch::autograd::grad({y}, inputs, {dy})) results.push_back(gradient);
    return results;
  }
};

TEST_P(Experts, EqualTheSpecificationInFloat32) {
  const auto ours = run(false, at::kFloat), expected = run(true, at::kFloat);
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_LT(relative_error(ours[i], expected[i]), 5e-6) << "result " << i;
}

TEST_P(Experts, Bfloat16StaysWithinItsRounding) {
  const auto expected = run(true, at::kFloat);
  for (const bool products : {false, true}) {
    const testing::MultipliesInBf16 chosen(products);
    const auto ours = run(false, at::kBFloat16);
    EXPECT_EQ(ours[0].scalar_type(), at::kBFloat16);
    // Near the clamp, where these random pre-activations lie often, rounding decides whether an element has a gradient at all.
    const double bound = GetParam().clamped && products ? 0.2 : 3e-2;
    EXPECT_LT(relative_error(ours[0], expected[0]), 3e-2) << products;
    for (size_t i = 1; i < expected.size(); ++i) EXPECT_LT(relative_error(ours[i], expected[i]), bound) << "result " << i << (products ? ", products in bfloat16" : "");
  }
}

TEST_P(Experts, BitsDoNotDependOnThreads) {
  const int before = at::get_num_threads();
  const testing::MultipliesInBf16 chosen(true);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    at::set_num_threads(1);
    const auto alone = run(false, type);
    for (const int threads : {2, 3}) {
      at::set_num_threads(threads);
      const auto together = run(false, type);
      for (size_t i = 0; i < alone.size(); ++i) EXPECT_TRUE(at::equal(alone[i], together[i])) << "result " << i << " on " << threads << " threads, " << type;
    }
  }
  at::set_num_threads(before);
}

INSTANTIATE_TEST_SUITE_P(Shapes, Experts,
                         ::testing::Values(ExpertSetup{37, 24, 10, 6, 2, 3}, ExpertSetup{1, 40, 24, 5, 3, 4}, ExpertSetup{90, 33, 17, 16, 4, 2, false, true},
                                           ExpertSetup{41, 64, 32, 4, 1, 5, true, true, true}, ExpertSetup{29, 64, 32, 9, 2, 4, false, false, false, true, 4},
                                           ExpertSetup{23, 32, 32, 3, 3, 0, true}, ExpertSetup{37, 24, 10, 6, 2, 3, false, true, false, false, 0, true}));

TEST(ExpertsErrors, NameWhatDoesNotFit) {
  const auto in = frozen(at::zeros({8, 5})), out = frozen(at::zeros({6, 4}));
  ExpertBank gate_up, down;
  gate_up.num_experts = down.num_experts = 1;
  gate_up.weights = {&in};
  down.weights = {&out};
  EXPECT_THROW(experts(at::zeros({2, 6}), at::zeros({2, 1}, at::kLong), at::ones({2, 1}), gate_up, down), std::runtime_error);
  const auto right = frozen(at::zeros({8, 6}));
  gate_up.weights = {&right};
  EXPECT_NO_THROW(experts(at::zeros({2, 6}), at::zeros({2, 1}, at::kLong), at::ones({2, 1}), gate_up, down));
  EXPECT_THROW(experts(at::zeros({2, 6}), at::ones({2, 1}, at::kLong), at::ones({2, 1}), gate_up, down), std::runtime_error);
}

}  // namespace
}  // namespace graft
