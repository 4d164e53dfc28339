// Losses through their launchers and kernels against their references, in float32 and bfloat16.
#include <ATen/ATen.h>

#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "tests/emulator/operators/kernels_under_test.h"
#include "tests/kernels/torch/distillation.h"

namespace graft {
namespace {

using testing::Distillation;
using testing::random_tensor;
using testing::TeacherKind;

class LossIn : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  // Losses are float32 in both types; gradients are rounded to hidden's.
  double gradient_tolerance() const { return GetParam() == at::kFloat ? 1.2e-5 : 1.5e-2; }
};
INSTANTIATE_TEST_SUITE_P(Types, LossIn, ::testing::Values(at::kFloat, at::kBFloat16), [](const auto& info) { return std::string(c10::toString(info.param)); });

TEST_P(LossIn, LinearCrossEntropy) {
  const auto hidden = random_tensor({29, 12}, 1).to(GetParam());
  const auto weight = testing::frozen(random_tensor({601, 12}, 2));
  std::vector<int32_t> labels;
  std::vector<float> weights;
  for (int32_t i = 0; i < 29; ++i) {
    labels.push_back(i * 37 % 601);
    weights.push_back(0.5f + 0.1f * static_cast<float>(i % 4));
  }
  for (const auto& [softcap, z_loss, smoothing] : {std::tuple{0.0, 0.0, 0.0}, {3.0, 0.0, 0.0}, {0.0, 0.01, 0.0}, {0.0, 0.0, 0.1}, {3.0, 0.01, 0.2}}) {
    for (const int64_t buffer : {int64_t{5000}, int64_t{1} << 20}) {   // two rows a block, all in one
      for (const bool want_gradient : {true, false}) {
        CrossEntropyOptions options{want_gradient, 1.0 / 29, buffer, z_loss, smoothing};
        const LinearHead head(weight, softcap);
        const auto expected = linear_cross_entropy_reference(hidden, head, labels, weights, options);
        const test::KernelsUnderTest under_test;
        const auto ours = linear_cross_entropy(hidden.to(under_test.device()), head, labels, weights, options);
        EXPECT_EQ(under_test.plain_paths(), 0);
        EXPECT_NE(under_test.launches("cross_entropy_rows"), 0);
        EXPECT_NEAR(ours.weighted_loss, expected.weighted_loss, 2e-6 * expected.weighted_loss);
        EXPECT_EQ(ours.correct_M, expected.correct_M);
        for (size_t i = 0; i < labels.size(); ++i) {
          EXPECT_NEAR(ours.losses_M[i], expected.losses_M[i], 2e-5);
          EXPECT_NEAR(ours.log_sums_M[i], expected.log_sums_M[i], 2e-5);
        }
        ASSERT_EQ(ours.gradient_MC.defined(), want_gradient);
        if (!want_gradient) continue;
        EXPECT_EQ(ours.gradient_MC.scalar_type(), GetParam());
        EXPECT_LT(relative_error(ours.gradient_MC.cpu(), expected.gradient_MC), gradient_tolerance());
      }
    }
  }
}

TEST_P(LossIn, LinearKl) {
  const Distillation d(7, 300);
  for (const auto& c : testing::distillation_cases()) {
    SCOPED_TRACE(testing::describe(c));
    for (const int64_t buffer : {int64_t{5000}, int64_t{1} << 20}) {
      const test::KernelsUnderTest under_test;
      auto ours = d.run_on(linear_kl, c, d.hidden.to(under_test.device(), GetParam()), d.teacher_hidden.to(under_test.device(), GetParam()), buffer);
      EXPECT_EQ(under_test.plain_paths(), 0);
      EXPECT_NE(under_test.launches(c.teacher == TeacherKind::kSparse ? "sparse_kl_rows" : "kl_rows"), 0);
      EXPECT_EQ(ours.gradient_MC.scalar_type(), GetParam());
      ours.gradient_MC = ours.gradient_MC.cpu();
      testing::expect_same(ours, d.exact(c, GetParam()), gradient_tolerance());
    }
  }
}

}  // namespace
}  // namespace graft
