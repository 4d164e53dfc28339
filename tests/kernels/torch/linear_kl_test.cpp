// Distillation's loss: the specification against LibTorch's own functions and finite differences in double, the fast path against the specification.
#include <cmath>
#include <numeric>

#include <torch/csrc/autograd/autograd.h>

#include "kernels/common/error.h"
#include "tests/kernels/torch/distillation.h"
#include "tests/kernels/torch/finite_differences.h"

namespace graft {
namespace {

using testing::Distillation;
using testing::DistillationCase;
using testing::finite_differences;
using testing::frozen;
using testing::leaf;
using testing::random_tensor;
using testing::TeacherKind;

// By LibTorch's kl_div and autograd, in double, over whole logits.
struct KlLoss {
  at::Tensor sum, gradient;
};
KlLoss expected_loss(const Distillation& d, const DistillationCase& c) {
  const auto x = leaf(d.hidden.to(at::kDouble));
  const auto logits_of = [](const at::Tensor& hidden, const at::Tensor& head, double softcap) {
    const auto logits = at::matmul(hidden, head.to(at::kDouble).t());
    return softcap > 0 ? softcap * at::tanh(logits / softcap) : logits;
  };
  const auto log_q = at::log_softmax(logits_of(x, d.head, c.softcap) / c.temperature, 1);
  const auto teacher = c.teacher == TeacherKind::kDense ? d.dense_logits().to(at::kDouble) : logits_of(d.teacher_hidden.to(at::kDouble), d.teacher_head, c.teacher_softcap);
  const auto log_p = at::log_softmax(teacher / c.temperature, 1);
  const auto kl = [](const at::Tensor& log_of, const at::Tensor& log_from) { return at::kl_div(log_from, log_of, at::Reduction::None, /*log_target=*/true).sum(1); };
  const auto [a, m] = c.mixture;
  const auto log_m = at::logsumexp(at::stack({log_q + std::log1p(-m), log_p + std::log(m)}), 0);
  const auto losses = c.divergence == Divergence::kForwardKl   ? kl(log_p, log_q)
                      : c.divergence == Divergence::kReverseKl ? kl(log_q, log_p)
                                                               : a * kl(log_p, log_m) + (1 - a) * kl(log_q, log_m);
  auto weights = at::ones({x.size(0)}, at::kDouble);
  for (size_t i = 0; i < d.weights.size() && c.weighted; ++i) weights[static_cast<int64_t>(i)] = d.weights[i];
  const auto sum = (losses * weights).sum() * (c.squared ? c.temperature * c.temperature : 1);
  return {sum, torch::autograd::grad({sum * 0.7}, {x})[0]};
}

TEST(LinearKl, EqualsLibTorchsKlDiv) {
  const Distillation d(13, 600);
  for (const auto& c : testing::distillation_cases()) {
    if (c.teacher == TeacherKind::kSparse) continue;
    SCOPED_TRACE(testing::describe(c));
    const auto expected = expected_loss(d, c);
    for (const int64_t buffer : {int64_t{4000}, int64_t{1} << 20}) {   // one row a block, all in one
      const auto ours = d.run(linear_kl, c, at::kFloat, buffer);
      EXPECT_NEAR(ours.weighted_loss / expected.sum.item<double>(), 1, 3e-6);
      EXPECT_LT(relative_error(ours.gradient_MC, expected.gradient), 1.2e-5);
      for (const auto& [type, tolerance] : {std::pair{at::kFloat, 2e-5}, {at::kDouble, 1e-12}}) {   // float32: it subtracts logarithms, as a specification may
        const auto reference = d.run(linear_kl_reference, c, type, buffer);
        EXPECT_NEAR(reference.weighted_loss / expected.sum.item<double>(), 1, tolerance);
        EXPECT_LT(relative_error(reference.gradient_MC, expected.gradient), tolerance);
      }
    }
  }
}

TEST(LinearKl, TheFastPathIsTheSpecification) {
  const Distillation d(13, 600);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    for (const bool products : {false, true}) {
      const testing::MultipliesInBf16 in_bf16(products);
      for (const auto& c : testing::distillation_cases()) {
        SCOPED_TRACE(testing::describe(c));
        const auto ours = d.run(linear_kl, c, type);
        testing::expect_same(ours, d.exact(c, type), type == at::kFloat ? 1.2e-5 : 1.5e-2);
        EXPECT_EQ(ours.gradient_MC.scalar_type(), type);
      }
    }
  }
}

TEST(LinearKl, GradientsAreFiniteDifferences) {
  const Distillation d(1, 40);
  const auto hidden = d.hidden.to(at::kDouble) * 0.5;
  for (const auto& c : testing::distillation_cases()) {
    const auto loss_at = [&](const at::Tensor& x) { return d.run_on(linear_kl_reference, c, x, d.teacher_hidden.to(at::kDouble), int64_t{1} << 20); };
    EXPECT_LT(relative_error(loss_at(hidden).gradient_MC, finite_differences(hidden, [&](const at::Tensor& x) { return 0.7 * loss_at(x).weighted_loss; })), 1e-7) << testing::describe(c);
  }
}

// Where all tokens are entries, and where a sparse teacher's few tokens are all there is, the loss is the dense one.
TEST(LinearKl, EntriesOfAllTokensAreTheDenseTeacher) {
  const Distillation d(5, 40);
  const auto log_p = at::log_softmax(d.dense_logits(), 1).contiguous();
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 5 * 40; ++i) ids.push_back(i % 40);
  const auto weight = frozen(d.head);
  const SparseTeacher sparse{40, ids, {log_p.const_data_ptr<float>(), static_cast<size_t>(log_p.numel())}, {}, 1};
  for (const auto kind : {Divergence::kForwardKl, Divergence::kReverseKl, Divergence::kMixture}) {
    KlOptions options;
    options.divergence = kind;
    for (const auto f : {+[](const at::Tensor& x, const HeadPieces& h, const Teacher& t, const KlOptions& o) { return linear_kl(x, h, t, {}, o); },
                         +[](const at::Tensor& x, const HeadPieces& h, const Teacher& t, const KlOptions& o) { return linear_kl_reference(x, h, t, {}, o); }}) {
      testing::expect_same(f(d.hidden, WholeHead(weight), sparse, options), f(d.hidden, WholeHead(weight), DenseTeacher{log_p}, options), 1e-5);
    }
  }
}

TEST(LinearKl, SampledEntriesAreADistributionOfTheirOwn) {
  const Distillation d(2, 40);
  const std::vector<int32_t> ids = {3, 17, -1, 39, 0, 5};
  const std::vector<float> log_p = {std::log(0.25f), std::log(0.75f), 0, std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  auto dense = at::full({2, 40}, -INFINITY);
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0) dense[static_cast<int64_t>(i) / 3][ids[i]] = log_p[i];
  }
  const auto weight = frozen(d.head);
  for (const auto kind : {Divergence::kForwardKl, Divergence::kMixture}) {
    KlOptions options;
    options.divergence = kind;
    const WholeHead head(weight);
    const auto expected = linear_kl_reference(d.hidden, head, DenseTeacher{dense}, {}, options);
    testing::expect_same(linear_kl(d.hidden, head, SparseTeacher{3, ids, log_p, {}, 1}, {}, options), expected, 2e-5);
    testing::expect_same(linear_kl(d.hidden, head, DenseTeacher{dense}, {}, options), expected, 2e-5);
    testing::expect_same(linear_kl_reference(d.hidden, head, SparseTeacher{3, ids, log_p, {}, 1}, {}, options), expected, 2e-5);
  }
}

TEST(LinearKl, OfEqualDistributionsIsNothing) {
  const Distillation d(5, 1000);
  const auto weight = frozen(d.head);
  const WholeHead head(weight);
  for (const auto kind : {Divergence::kForwardKl, Divergence::kReverseKl, Divergence::kMixture}) {
    KlOptions options;
    options.divergence = kind;
    const auto result = linear_kl(d.hidden, head, HiddenTeacher{d.hidden, head}, {}, options);
    EXPECT_NEAR(result.weighted_loss, 0, 1e-5);
    EXPECT_LT(result.gradient_MC.norm().item<double>(), 1e-5);
  }
}

TEST(LinearKl, NoRowsAndNoGradient) {
  const Distillation d(5, 40);
  const auto weight = frozen(d.head);
  const WholeHead head(weight);
  KlOptions options;
  const auto nothing = d.hidden.narrow(0, 0, 0);
  EXPECT_EQ(linear_kl(nothing, head, HiddenTeacher{nothing, head}, {}, options).gradient_MC.size(0), 0);
  const double loss = linear_kl(d.hidden, head, DenseTeacher{d.dense_logits()}, {}, options).weighted_loss;
  options.want_gradient = false;
  const auto without = linear_kl(d.hidden, head, DenseTeacher{d.dense_logits()}, {}, options);
  EXPECT_EQ(without.weighted_loss, loss);
  EXPECT_FALSE(without.gradient_MC.defined());
}

TEST(LinearKl, RefusesWhatIsNotATeacher) {
  const Distillation d(2, 40);
  const auto weight = frozen(d.head), other = frozen(d.head.narrow(0, 0, 39));
  const WholeHead head(weight), smaller(other);
  const auto refuses = [&](const Teacher& teacher, const KlOptions& options = {}, const std::vector<float>& weights = {}) {
    EXPECT_THROW(linear_kl(d.hidden, head, teacher, weights, options), UserError);
  };
  const DenseTeacher good{d.dense_logits()};
  refuses(HiddenTeacher{d.hidden, smaller});
  refuses(HiddenTeacher{d.hidden.narrow(0, 0, 1), head});
  refuses(DenseTeacher{at::zeros({2, 39})});
  refuses(DenseTeacher{at::zeros({2, 40}, at::kLong)});
  refuses(good, {}, {1});
  EXPECT_THROW(linear_kl(d.hidden.to(at::kDouble), head, good, {}, {}), UserError);
  for (const double temperature : {0.0, -1.0, std::nan("")}) {
    KlOptions options;
    options.temperature = temperature;
    refuses(good, options);
  }
  for (const auto& mixture : {jensen_shannon(0), jensen_shannon(1), Mixture{1.1, 0.5}}) {
    KlOptions options;
    options.divergence = Divergence::kMixture;
    options.mixture = mixture;
    refuses(good, options);
  }
  const std::vector<int32_t> ids = {0, 1, 5, 6};
  const std::vector<float> log_p(4, std::log(0.3f)), halves(4, std::log(0.5f)), tails = {0.4f, 0.4f}, large = {0.6f, 0.4f};
  EXPECT_NO_THROW(linear_kl(d.hidden, head, SparseTeacher{2, ids, log_p, tails, 1}, {}, {}));
  refuses(SparseTeacher{2, ids, log_p, tails, 2});          // of another temperature
  refuses(SparseTeacher{3, ids, log_p, tails, 1});          // not so many entries
  refuses(SparseTeacher{2, ids, log_p, large, 1});          // more than 1 in all
  for (const auto& wrong : {std::vector<int32_t>{0, 0, 5, 6}, {0, 40, 5, 6}, {0, -2, 5, 6}}) refuses(SparseTeacher{2, wrong, log_p, tails, 1});
  for (const float wrong : {0.5f, NAN}) refuses(SparseTeacher{2, ids, std::vector<float>(4, wrong), tails, 1});
  KlOptions reverse;
  reverse.divergence = Divergence::kReverseKl;
  refuses(SparseTeacher{2, ids, halves, {}, 1}, reverse);   // nothing for the other tokens: infinite
}

}  // namespace
}  // namespace graft
