// Hidden states of a student against a teacher's: the loss against its formula in double, gradients of adapters and projections by differences.
#include "trainer/distillation/hidden_matching.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "tests/support/error_of.h"
#include "tests/trainer/torch/few_steps.h"
#include "trainer/distillation/teacher_model.h"

namespace graft {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ObjectiveOptions matching_options(std::vector<std::pair<int64_t, int64_t>> layers = {}) {
  ObjectiveOptions options;
  options.kind = "distill";
  options.hidden_states_weight = 0.3;
  options.hidden_states_layers = std::move(layers);
  return options;
}

AdapterOptions small_adapters() {
  AdapterOptions options;
  options.rank = 4;
  options.alpha = 8;
  return options;
}

// Student and teacher of one width, or the teacher's states twice as wide; adapters and projections have moved.
struct MatchedPair {
  test::TinyModel student{"llama"}, teacher{"qwen3_moe"};
  AdapterSet adapters{*student.decoder, small_adapters(), 3};
  const int64_t num_adapter_values = adapters.num_parameters();
  HiddenMatching matching;

  explicit MatchedPair(bool wide) : matching(matching_options({{0, 1}, {1, 0}, {1, 1}}), student.decoder->spec(), spec_of_teacher(wide), adapters, 3) {
    auto* values = adapters.parameters.data_ptr<float>();
    for (int64_t i = 0; i < adapters.num_parameters(); ++i) values[i] += static_cast<float>(0.2 * counter_uniform(5, 1, static_cast<uint64_t>(i)) - 0.1);
  }
  DecoderSpec spec_of_teacher(bool wide) const {
    auto spec = teacher.decoder->spec();
    if (wide) spec.hidden_size *= 2;
    return spec;
  }
  TeacherSignals signals(const Batch& batch) const {
    TeacherSignals signals;
    signals.hidden_MC = taught_hidden(*teacher.decoder, batch, matching.teacher_layers(), &signals.states_MC);
    signals.head = std::make_shared<WholeHead>(teacher.decoder->head());
    for (auto& states : signals.states_MC) {
      if (matching.projects()) states = at::cat({states, states.roll(1, 1).square()}, 1);
    }
    return signals;
  }
  MicroBatchResult run(const Batch& batch, const TeacherSignals& teacher_signals, MicroBatchOptions options = {}) {
    adapters.gradients.zero_();
    options.gradient_scale = 1.0 / 50;
    options.divergence_scale = 1.0 / 80;
    options.objective = {0.6, Divergence::kForwardKl};
    options.hidden_matching = &matching;
    options.hidden_matching_scale = 0.3 / 80;
    options.teacher = &teacher_signals;
    return run_micro_batch(*student.decoder, &adapters, batch, options);
  }
};

Batch matched_batch(bool all) {
  auto batch = test::some_batch(0, false);
  batch.teaches_all = all;
  return batch;
}

TEST(HiddenMatching, LayersAreMatchedEvenlyOrAsNamed) {
  test::TinyModel student("llama"), teacher("smollm3");   // 2 and 4 layers
  AdapterSet adapters(*student.decoder, small_adapters(), 3);
  const int64_t before = adapters.num_parameters();
  const HiddenMatching even(matching_options(), student.decoder->spec(), teacher.decoder->spec(), adapters, 3);
  EXPECT_THAT(even.student_layers(), ElementsAre(0, 1));
  EXPECT_THAT(even.teacher_layers(), ElementsAre(1, 3));
  EXPECT_EQ(adapters.num_parameters(), before) << "both are 32 wide";
  const HiddenMatching turned(matching_options(), teacher.decoder->spec(), student.decoder->spec(), adapters, 3);
  EXPECT_THAT(turned.teacher_layers(), ElementsAre(0, 0, 1, 1));
  const HiddenMatching named(matching_options({{1, 2}, {0, 2}}), student.decoder->spec(), teacher.decoder->spec(), adapters, 3);
  EXPECT_THAT(named.student_layers(), ElementsAre(1, 0));
  EXPECT_THAT(named.teacher_layers(), ElementsAre(2, 2));
  EXPECT_THAT(test::error_of([&] { HiddenMatching(matching_options({{0, 4}}), student.decoder->spec(), teacher.decoder->spec(), adapters, 3); }),
              HasSubstr("from 0 to 1 of the student and from 0 to 3 of the teacher, got [0, 4]"));
}

TEST(HiddenMatching, ProjectionsBeginOrthogonalAndOfTheSeed) {
  for (const bool narrow : {true, false}) {
    const int64_t student_width = narrow ? 32 : 48;
    test::TinyModel model("llama");
    auto student = model.decoder->spec(), teacher = student;
    student.hidden_size = student_width;
    teacher.hidden_size = 80 - student_width;
    AdapterSet adapters(*model.decoder, small_adapters(), 3);
    const auto before = adapters.parameters.clone();
    const HiddenMatching one(matching_options(), student, teacher, adapters, 3), same(matching_options(), student, teacher, adapters, 3), other(matching_options(), student, teacher, adapters, 4);
    EXPECT_TRUE(at::equal(adapters.parameters.narrow(0, 0, before.numel()), before));
    EXPECT_EQ(adapters.num_parameters(), before.numel() + 3 * one.num_parameters());
    for (size_t pair = 0; pair < 2; ++pair) {
      const auto w = one.projection(pair).to(at::kDouble), product = narrow ? w.t().matmul(w) : w.matmul(w.t());
      EXPECT_LT((product - at::eye(32, at::kDouble)).abs().max().item<double>(), 1e-6);
      EXPECT_TRUE(at::equal(one.projection(pair), same.projection(pair)));
      EXPECT_FALSE(at::equal(one.projection(pair), other.projection(pair)));
    }
    EXPECT_FALSE(at::equal(one.projection(0), one.projection(1)));
  }
}

TEST(HiddenMatching, ACutStudentsChannelsBeginWhereTheyWere) {
  test::TinyModel model("llama");
  auto student = model.decoder->spec();
  student.hidden_size = 3;
  AdapterSet adapters(*model.decoder, small_adapters(), 3);
  const std::vector<int64_t> kept = {4, 7, 30}, beyond = {4, 7, 32};
  const HiddenMatching matching(matching_options(), student, model.decoder->spec(), adapters, 3, kept), other(matching_options(), student, model.decoder->spec(), adapters, 3, beyond);
  const auto state = at::arange(32, at::kFloat);   // of the model that it was cut from
  EXPECT_TRUE(at::equal(matching.projection(1).t().matmul(state), at::tensor({4.0f, 7.0f, 30.0f})));
  EXPECT_THAT(matching.describe(), HasSubstr("the channels' places"));
  EXPECT_THAT(other.describe(), testing::Not(HasSubstr("the channels' places")));
}

TEST(HiddenMatching, LossesEqualTheFormula) {
  for (const bool wide : {false, true}) {
    MatchedPair pair(wide);
    for (const bool all : {false, true}) {
      const auto batch = matched_batch(all);
      const auto signals = pair.signals(batch);
      std::vector<at::Tensor> states;
      taught_hidden(*pair.student.decoder, batch, pair.matching.student_layers(), &states);
      double expected = 0;
      const auto taught = batch.taught_tokens();
      for (size_t i = 0; i < states.size(); ++i) {
        auto h = states[i].to(at::kDouble);
        const auto t = signals.states_MC[i].to(at::kDouble);
        if (wide) h = h.matmul(pair.matching.projection(i).to(at::kDouble).t());
        const auto of_token = (h - t).square().sum(1) / t.square().sum(1);
        for (size_t m = 0; m < taught.size(); ++m) expected += of_token[static_cast<int64_t>(m)].item<double>() * batch.weights_N[static_cast<size_t>(taught[m])] / 3;
      }
      const auto result = pair.run(batch, signals);
      EXPECT_NEAR(result.weighted_hidden_state_loss, expected, 2e-6 * expected);
      const double loss = 0.4 * result.weighted_cross_entropy / 50 + 0.6 * result.weighted_divergence / 80 + 0.3 * expected / 80;
      EXPECT_NEAR(result.weighted_loss / 50, loss, 2e-6 * loss);
    }
  }
}

// Of the adapters alone and of the projections alone, along the gradient itself, as in distillation_test.cpp.
TEST(HiddenMatching, GradientsAreTheSlopesOfTheLosses) {
  for (const bool wide : {false, true}) {
    MatchedPair pair(wide);
    auto& parameters = pair.adapters.parameters;
    for (const bool all : {false, true}) {
      const auto batch = matched_batch(all);
      const auto signals = pair.signals(batch);
      pair.run(batch, signals);
      const auto whole = pair.adapters.gradients.clone(), begin = parameters.clone();
      for (const bool of_projections : {false, true}) {
        if (of_projections && !wide) continue;
        auto gradient = whole.clone();
        if (of_projections) gradient.narrow(0, 0, pair.num_adapter_values).zero_();
        else gradient.narrow(0, pair.num_adapter_values, gradient.numel() - pair.num_adapter_values).zero_();
        const double norm = gradient.norm().item<double>(), step = 2e-3;
        ASSERT_GT(norm, 0);
        const auto loss_at = [&](double distance) {
          parameters.copy_(begin + (gradient * (distance / norm)).to(at::kFloat));
          return pair.run(batch, signals).weighted_loss / 50;
        };
        const double slope = (loss_at(step) - loss_at(-step)) / (2 * step);
        parameters.copy_(begin);
        EXPECT_NEAR(slope / norm, 1, 2e-3) << wide << all << of_projections;
      }
    }
  }
}

TEST(HiddenMatching, IsTheSameRecomputedAndWithTheCommonBeginningComputedOnce) {
  MatchedPair pair(true);
  const auto batch = matched_batch(false);
  ASSERT_GT(share_prefix(batch).shared_prefix, 0);
  const auto signals = pair.signals(batch);
  const auto loss = pair.run(batch, signals).weighted_loss;
  const auto gradients = pair.adapters.gradients.clone();
  EXPECT_EQ(pair.run(batch, signals, {.recompute = Recompute::kLayer}).weighted_loss, loss);
  EXPECT_TRUE(at::equal(pair.adapters.gradients, gradients));
  EXPECT_NEAR(pair.run(batch, signals, {.share_prefix = false}).weighted_loss, loss, 1e-6 * loss);
  EXPECT_LT((pair.adapters.gradients - gradients).norm().item<double>(), 1e-5 * gradients.norm().item<double>());
}

TEST(HiddenMatching, EqualModelsHaveNothingToLearn) {
  test::TinyModel model("llama");
  AdapterSet adapters(*model.decoder, small_adapters(), 3);   // B = 0
  const HiddenMatching matching(matching_options(), model.decoder->spec(), model.decoder->spec(), adapters, 3);
  TeacherModel teacher(*model.decoder, adapters);
  teacher.keep_states_after(matching.teacher_layers());
  const auto batch = matched_batch(false);
  const auto signals = teacher.signals(batch);
  MicroBatchOptions options;
  options.hidden_matching = &matching;
  options.teacher = &signals;
  EXPECT_EQ(run_micro_batch(*model.decoder, &adapters, batch, options).weighted_hidden_state_loss, 0);
}

}  // namespace
}  // namespace graft
