// Norms with a residual, gated activations, experts and AdamW through their launchers and kernels, against their references in double.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "kernels/adamw/adamw.h"
#include "kernels/gated_activation/gated_activation.h"
#include "kernels/layer_norm/layer_norm.h"
#include "kernels/rms_norm/rms_norm.h"
#include "tests/emulator/operators/kernels_under_test.h"
#include "tests/support/relative_error.h"

namespace graft {
namespace {

using Tensors = std::vector<at::Tensor>;

class RowOperatorIn : public testing::TestWithParam<at::ScalarType> {
 protected:
  at::Tensor random(at::IntArrayRef sizes, uint64_t seed) const {
    return at::randn(sizes, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions(at::kFloat)).to(GetParam());
  }
  at::Tensor vector(int64_t size, uint64_t seed) const {
    return at::rand({size}, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions(at::kFloat)) + 0.5;
  }
  double tolerance() const { return GetParam() == at::kFloat ? 2e-6 : 1e-2; }

  // function and reference: of inputs to results. Gradients of those results that `read` names; all inputs' gradients are compared.
  template <typename Function, typename Reference>
  void compare(const Tensors& inputs, const std::vector<size_t>& read, const Function& function, const Reference& reference,
               const std::vector<std::string>& kernels) const {
    const auto run = [&](at::Device device, at::ScalarType type, const auto& f) {
      Tensors leaves;
      for (const auto& input : inputs) leaves.push_back(input.to(device, type).clone().requires_grad_());
      const auto results = f(leaves);
      Tensors used, gradients, all;
      for (const size_t i : read) {
        used.push_back(results[i]);
        gradients.push_back(at::sin(at::arange(results[i].numel(), at::kDouble) + static_cast<double>(i)).view(results[i].sizes()).to(device, type));
      }
      for (const auto& result : results) all.push_back(result.detach());
      for (const auto& gradient : torch::autograd::grad(used, leaves, gradients)) all.push_back(gradient);
      return all;
    };
    const auto expected = run(at::kCPU, at::kDouble, reference);
    const test::KernelsUnderTest under_test;
    const auto got = run(under_test.device(), GetParam(), function);
    ASSERT_EQ(got.size(), expected.size());
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(got[i].scalar_type(), GetParam()) << i;
      EXPECT_LE(relative_error(got[i], expected[i]), tolerance()) << "result or gradient " << i;
    }
    EXPECT_EQ(under_test.plain_paths(), 0);
    for (const auto& kernel : kernels) EXPECT_NE(under_test.launches(kernel), 0) << kernel;
  }
};
INSTANTIATE_TEST_SUITE_P(Types, RowOperatorIn, testing::Values(at::kFloat, at::kBFloat16, at::kHalf),
                         [](const auto& info) { return std::string(c10::toString(info.param)); });

TEST_P(RowOperatorIn, LayerNorm) {
  const auto weight = vector(72, 3), bias = vector(72, 4);
  compare(
      {random({5, 72}, 1)}, {0}, [&](const Tensors& x) { return Tensors{layer_norm(x[0], weight.to(x[0].device()), bias.to(x[0].device()), {1e-2})}; },
      [&](const Tensors& x) { return Tensors{layer_norm_reference(x[0], weight, bias, {1e-2})}; }, {"layer_norm_forward", "layer_norm_backward"});
}

TEST_P(RowOperatorIn, NormOfASum) {
  const auto weight = vector(72, 3), bias = vector(72, 4);
  const NormOptions options{1e-2};
  for (const bool centred : {false, true}) {
    for (const auto& read : {std::vector<size_t>{0, 1}, {0}, {1}}) {   // of sum and norm: both, or one alone
      std::vector<std::string> kernels = {centred ? "layer_norm_forward" : "rms_norm_forward"};
      if (read.back() == 1) kernels.push_back(centred ? "layer_norm_backward" : "rms_norm_backward");
      compare(
          {random({5, 72}, 1), random({5, 72}, 2)}, read,
          [&](const Tensors& x) {
            const auto w = weight.to(x[0].device()), b = bias.to(x[0].device());
            const auto both = centred ? add_and_layer_norm(x[0], x[1], w, b, options) : add_and_rms_norm(x[0], x[1], w, options);
            return Tensors{both.sum_NC, both.y_NC};
          },
          [&](const Tensors& x) {
            const auto sum = x[0] + x[1];
            return Tensors{sum, centred ? layer_norm_reference(sum, weight, bias, options) : rms_norm_reference(sum, weight, options)};
          },
          kernels);
    }
  }
}

// The same values in two roundings; in one pass over memory, rows that are views are copied.
TEST_P(RowOperatorIn, NormsOfViews) {
  const auto weight = vector(72, 3);
  compare(
      {random({5, 75}, 1)}, {0},
      [&](const Tensors& x) {
        return Tensors{rms_norm(x[0].narrow(1, 3, 72), weight.to(x[0].device()), NormOptions{1e-2, true})};
      },
      [&](const Tensors& x) { return Tensors{rms_norm_reference(x[0].narrow(1, 3, 72), weight, {1e-2})}; }, {"rms_norm_forward", "rms_norm_backward"});
}

TEST_P(RowOperatorIn, GatedActivation) {
  using Kind = GatedActivation::Kind;
  for (const auto kind : {Kind::kSwiGlu, Kind::kGeluTanhGated, Kind::kClampedSwiGlu, Kind::kGeluTanh}) {
    for (const bool interleaved : {false, true}) {
      if (interleaved && kind == Kind::kGeluTanh) continue;
      SCOPED_TRACE(testing::Message() << "kind " << static_cast<int>(kind) << (interleaved ? ", interleaved" : ""));
      const GatedActivation activation{kind, interleaved, 1.702, 0.9};
      compare(
          {random({7, 80}, 1)}, {0}, [&](const Tensors& x) { return Tensors{gated_activation(x[0], activation)}; },
          [&](const Tensors& x) { return Tensors{gated_activation_reference(x[0], activation)}; }, {"gated_activation_forward", "gated_activation_backward"});
    }
  }
}

TEST(AdamWOperator, UpdatesAsTheReferenceDoes) {
  const AdamWOptions options{0.9, 0.99, 1e-6, 0.1, 0.5};
  const auto run = [&](at::Device device) {
    const auto p = at::sin(at::arange(1003, at::kFloat)).to(device), m = at::zeros_like(p), v = at::zeros_like(p);
    std::vector<double> norms;
    for (int step = 1; step <= 4; ++step)
      norms.push_back(adamw(p, m, v, (at::cos(at::arange(1003, at::kFloat) * (step + 1)) * 0.1).to(device), options, 1e-2, step));
    const auto before = p.clone();
    EXPECT_TRUE(std::isnan(adamw(p, m, v, at::full_like(p, NAN), options, 1e-2, 5)));
    EXPECT_TRUE(at::equal(p, before));
    return std::tuple(norms, p.cpu(), m.cpu(), v.cpu());
  };
  set_operator_path(OperatorPath::kReference);
  const auto [norms, p, m, v] = run(at::kCPU);
  const test::KernelsUnderTest under_test;
  const auto [norms2, p2, m2, v2] = run(under_test.device());
  for (size_t i = 0; i < norms.size(); ++i) EXPECT_NEAR(norms[i], norms2[i], 1e-12 * norms[i]);
  EXPECT_TRUE(at::allclose(p, p2, 1e-6, 1e-7));
  EXPECT_TRUE(at::allclose(m, m2, 1e-6, 1e-8));
  EXPECT_TRUE(at::allclose(v, v2, 1e-6, 1e-9));
  EXPECT_NE(under_test.launches("adamw_update"), 0);
}

TEST(AdamWOperator, RefusesParametersThatKernelsCannotReach) {
  const test::KernelsUnderTest under_test;
  const auto buffer = at::zeros({9}, at::TensorOptions(at::kFloat).device(under_test.device())), p = buffer.narrow(0, 1, 8), other = at::zeros_like(p);
  EXPECT_THROW(adamw(p, other, other, other, {}, 1e-3, 1), std::runtime_error);
}

}  // namespace
}  // namespace graft
