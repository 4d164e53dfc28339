// Operators over rows as callers see them: norms with a residual, layer norm, gated activations, AdamW.
#include <torch/csrc/autograd/autograd.h>

#include "kernels/adamw/adamw.h"
#include "kernels/common/error.h"
#include "kernels/gated_activation/gated_activation.h"
#include "kernels/layer_norm/layer_norm.h"
#include "kernels/rms_norm/rms_norm.h"
#include "tests/kernels/torch/operators.h"
#include "tests/support/error_of.h"

namespace graft {
namespace {

using testing::leaf;
using testing::random_tensor;

TEST(LayerNorm, EqualsTheFormulaInDouble) {
  const auto x = leaf(random_tensor({13, 40}, 1) + 2), weight = random_tensor({40}, 2) + 1, bias = random_tensor({40}, 3),
             gradient = random_tensor({13, 40}, 4);
  const auto exact = leaf(x.detach().to(at::kDouble));
  const auto centred = exact - exact.mean(1, true);
  const auto expected = centred / at::sqrt(centred.square().mean(1, true) + 1e-2) * weight.to(at::kDouble) + bias.to(at::kDouble);
  const auto ours = layer_norm(x, weight, bias, {1e-2});
  EXPECT_LT(relative_error(ours, expected), 1e-6);
  EXPECT_LT(relative_error(torch::autograd::grad({ours}, {x}, {gradient})[0], torch::autograd::grad({expected}, {exact}, {gradient.to(at::kDouble)})[0]), 1e-6);
}

TEST(Norms, OfASumAreThoseOfTheSum) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const auto x = leaf(random_tensor({5, 24}, 1).to(type)), residual = leaf(random_tensor({5, 24}, 2).to(type)), weight = random_tensor({24}, 3) + 1,
               bias = random_tensor({24}, 4);
    const auto gradient = random_tensor({5, 24}, 5).to(type), sum_gradient = random_tensor({5, 24}, 6).to(type);
    for (const bool centred : {false, true}) {
      const auto [sum, y] = centred ? add_and_layer_norm(x, residual, weight, bias, {1e-2}) : add_and_rms_norm(x, residual, weight, {1e-2});
      EXPECT_TRUE(at::equal(sum, x + residual));
      const auto again = leaf(sum);
      const auto expected = centred ? layer_norm(again, weight, bias, {1e-2}) : rms_norm(again, weight, 1e-2);
      EXPECT_TRUE(at::equal(y, expected));
      const auto gradients = torch::autograd::grad({sum, y}, {x, residual}, {sum_gradient, gradient}, true);
      EXPECT_TRUE(at::equal(gradients[0], torch::autograd::grad({expected}, {again}, {gradient})[0] + sum_gradient));
      EXPECT_TRUE(at::equal(gradients[0], gradients[1]));
    }
  }
}

// transformers: LlamaRMSNorm multiplies weight * hidden.to(type), Gemma's rounds once.
TEST(Norms, RoundBeforeOrAfterTheWeight) {
  const auto x = random_tensor({7, 64}, 1).to(at::kBFloat16), weight = (random_tensor({64}, 2) + 1).to(at::kBFloat16).to(at::kFloat);
  const auto wide = x.to(at::kFloat);
  const auto normed = wide * at::rsqrt(wide.square().mean(1, true) + 1e-2);
  EXPECT_TRUE(at::equal(rms_norm(x, weight, NormOptions{1e-2, true}), weight.to(at::kBFloat16) * normed.to(at::kBFloat16)));
  EXPECT_LT(relative_error(rms_norm(x, weight, 1e-2), normed * weight), 3e-3);
  EXPECT_FALSE(at::equal(rms_norm(x, weight, 1e-2), rms_norm(x, weight, NormOptions{1e-2, true})));
  const auto bias = at::zeros({64});
  EXPECT_FALSE(at::equal(layer_norm(x, weight, bias, {1e-2}), layer_norm(x, weight, bias, {1e-2, true})));
}

TEST(Norms, SayWhatIsWrong) {
  const auto x = at::zeros({2, 3}), weight = at::zeros({3});
  EXPECT_NE(
      test::error_of([&] { layer_norm(x, weight, at::zeros({4}), {1e-2}); }).find("layer_norm: expected bias in float32 of sizes [3] on cpu, got Float of sizes [4]"),
      std::string::npos);
  EXPECT_NE(test::error_of([&] { rms_norm(x, weight.to(at::kDouble), 1e-2); }).find("rms_norm: expected weight"), std::string::npos);
  EXPECT_NE(test::error_of([&] { rms_norm(at::zeros({3}), weight, 1e-2); }).find("rms_norm: expected x [N, C]"), std::string::npos);
  EXPECT_NE(test::error_of([&] {
              add_and_rms_norm(x, at::zeros({2, 3}, at::kBFloat16), weight, {1e-2});
            }).find("add_and_rms_norm: expected a residual as x"),
            std::string::npos);
  EXPECT_NE(test::error_of([&] {
              add_and_layer_norm(x, at::zeros({1, 3}), weight, weight, {1e-2});
            }).find("add_and_layer_norm: expected a residual as x"),
            std::string::npos);
}

TEST(GatedActivation, EqualsItsFormulas) {
  using Kind = GatedActivation::Kind;
  const auto x = random_tensor({6, 20}, 1, 4).to(at::kDouble);
  const auto gate = x.narrow(1, 0, 10), up = x.narrow(1, 10, 10);
  const auto gelu = [](const at::Tensor& t) { return 0.5 * t * (1 + at::tanh(std::sqrt(2 / M_PI) * (t + 0.044715 * t * t * t))); };
  const auto of = [&](Kind kind) { return gated_activation(x, {kind, false, 1.702, 3}); };
  EXPECT_LT(relative_error(of(Kind::kSwiGlu), gate / (1 + at::exp(-gate)) * up), 1e-14);
  EXPECT_LT(relative_error(of(Kind::kGeluTanhGated), gelu(gate) * up), 1e-14);
  EXPECT_LT(relative_error(of(Kind::kGeluTanh), gelu(x)), 1e-14);
  const auto g = at::minimum(gate, at::full({}, 3.0, at::kDouble)), u = at::clamp(up, -3, 3);
  EXPECT_LT(relative_error(of(Kind::kClampedSwiGlu), (u + 1) * g / (1 + at::exp(-1.702 * g))), 1e-14);
  const auto interleaved = at::stack({gate, up}, 2).flatten(1);
  for (const auto kind : {Kind::kSwiGlu, Kind::kGeluTanhGated, Kind::kClampedSwiGlu}) {
    EXPECT_TRUE(at::equal(gated_activation(interleaved, {kind, true, 1.702, 3}), of(kind))) << static_cast<int>(kind);
  }
  EXPECT_NE(test::error_of([&] {
              gated_activation(at::zeros({2, 3}), {});
            }).find("expected a floating type and sizes [N, 2I], got Float of sizes [2, 3]"),
            std::string::npos);
}

TEST(AdamW, SaysWhatIsWrong) {
  const auto p = at::zeros({5}), m = at::zeros({5}), v = at::zeros({5}), g = at::zeros({5});
  EXPECT_NE(test::error_of([&] {
              adamw(p, m, at::zeros({4}), g, {}, 1e-3, 1);
            }).find("adamw: expected second moment as [5] float32, contiguous, on cpu, got Float of sizes [4]"),
            std::string::npos);
  EXPECT_NE(test::error_of([&] { adamw(p, m, v, g.to(at::kDouble), {}, 1e-3, 1); }).find("adamw: expected gradients"), std::string::npos);
  EXPECT_NE(test::error_of([&] { adamw(at::zeros({5, 2}).select(1, 0), m, v, g, {}, 1e-3, 1); }).find("adamw: expected parameters"), std::string::npos);
  EXPECT_NE(test::error_of([&] { adamw(p, m, v, g, {}, 1e-3, 0); }).find("a step's number from 1, got 0"), std::string::npos);
}

}  // namespace
}  // namespace graft
