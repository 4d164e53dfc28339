// Learning from a teacher: losses against the formulas in double over full logits, gradients by differences, entries of a store against the whole distribution.
#include <cmath>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/common/error.h"
#include "tests/support/error_of.h"
#include "tests/trainer/torch/few_steps.h"
#include "trainer/distillation/label_targets.h"
#include "trainer/distillation/signal_entries.h"
#include "trainer/distillation/teacher_model.h"

namespace graft {
namespace {

using testing::HasSubstr;

// Student with an adapter that is no longer zero, and a teacher of another family.
struct Pair {
  test::TinyModel student{"llama"}, teacher{"qwen3_moe"};
  AdapterSet adapters{*student.decoder, options(), 3};

  static AdapterOptions options() {
    AdapterOptions options;
    options.rank = 4;
    options.alpha = 8;
    return options;
  }
  Pair() {
    for (int64_t i = 0; i < adapters.num_parameters(); ++i) adapters.parameters.data_ptr<float>()[i] = static_cast<float>(0.2 * counter_uniform(5, 1, static_cast<uint64_t>(i)) - 0.1);
  }
  TeacherSignals signals(const Batch& batch) const {
    TeacherSignals signals;
    signals.hidden_MC = taught_hidden(*teacher.decoder, batch);
    signals.head = std::make_shared<WholeHead>(teacher.decoder->head());
    return signals;
  }
  MicroBatchResult run(const Batch& batch, const Objective& objective, const TeacherSignals* teacher_signals, double divergence_scale = 1.0 / 50) {
    adapters.gradients.zero_();
    MicroBatchOptions options;
    options.gradient_scale = 1.0 / 50;
    options.divergence_scale = divergence_scale;
    options.objective = objective;
    options.teacher = teacher_signals;
    return run_micro_batch(*student.decoder, &adapters, batch, options);
  }
};

at::Tensor full_logits(const Decoder& decoder, const Batch& batch) { return head_logits(taught_hidden(decoder, batch), decoder.head()).to(at::kDouble); }

at::Tensor kl(const at::Tensor& p, const at::Tensor& q) { return (p.exp() * (p - q)).sum(1); }   // of log-probabilities

// The divergences of kernels/linear_kl, of every token.
at::Tensor divergence(const Objective& objective, const at::Tensor& teacher_logits, const at::Tensor& student_logits) {
  const auto p = at::log_softmax(teacher_logits / objective.temperature, 1), q = at::log_softmax(student_logits / objective.temperature, 1);
  const double factor = objective.times_temperature_squared ? objective.temperature * objective.temperature : 1;
  const auto [a, b] = objective.mixture;
  if (objective.divergence == Divergence::kForwardKl) return factor * kl(p, q);
  if (objective.divergence == Divergence::kReverseKl) return factor * kl(q, p);
  const auto m = (b * p.exp() + (1 - b) * q.exp()).log();
  return factor * (a * kl(p, m) + (1 - a) * kl(q, m));
}

at::Tensor weights_of(const Batch& batch, const std::vector<int64_t>& tokens) {
  std::vector<double> weights;
  for (const auto token : tokens) weights.push_back(batch.weights_N[static_cast<size_t>(token)]);
  return at::tensor(weights, at::kDouble);
}

const Objective kObjectives[] = {{1, Divergence::kForwardKl},
                                 {0.3, Divergence::kForwardKl, {}, 2, true},
                                 {1, Divergence::kReverseKl},
                                 {0.6, Divergence::kReverseKl, {}, 0.7},
                                 {1, Divergence::kMixture},
                                 {0.8, Divergence::kMixture, jensen_shannon(0.2), 1.5, true},
                                 {0.8, Divergence::kMixture, skewed_forward_kl(0.1)},
                                 {0.8, Divergence::kMixture, skewed_reverse_kl(0.1)}};

// The supervised tokens alone, and all tokens, of which the supervised have a cross-entropy.
Batch some_taught_batch(bool all) {
  auto batch = test::some_batch(0, false);
  batch.teaches_all = all;
  return batch;
}

TEST(Distillation, LossesEqualTheFormulasOverFullLogits) {
  Pair pair;
  for (const bool all : {false, true}) {
    const auto batch = some_taught_batch(all);
    const auto signals = pair.signals(batch);
    const auto student = full_logits(*pair.student.decoder, batch), teacher = full_logits(*pair.teacher.decoder, batch);
    ASSERT_EQ(student.size(0) > static_cast<int64_t>(batch.supervised_tokens().size()), all);
    const auto weights = weights_of(batch, batch.taught_tokens());
    double entropy = 0;
    const auto taught = batch.taught_tokens();
    const auto log_probabilities = at::log_softmax(student, 1);
    for (size_t m = 0; m < taught.size(); ++m) {
      const auto label = batch.labels_N[static_cast<size_t>(taught[m])];
      if (label != kUnsupervised) entropy -= log_probabilities[static_cast<int64_t>(m)][label].item<double>() * batch.weights_N[static_cast<size_t>(taught[m])];
    }
    for (const auto& objective : kObjectives) {
      const auto result = pair.run(batch, objective, &signals, 1.0 / 80);
      const double expected = (divergence(objective, teacher, student) * weights).sum().item<double>();
      EXPECT_NEAR(result.weighted_divergence, expected, 2e-6 * expected);
      EXPECT_NEAR(result.weighted_cross_entropy, entropy, 2e-6 * entropy);
      EXPECT_EQ(result.num_supervised, static_cast<int64_t>(batch.supervised_tokens().size()));
      const double mixed = (1 - objective.teacher_share) * entropy / 50 + objective.teacher_share * expected / 80;
      EXPECT_NEAR(result.weighted_loss / 50, mixed, 2e-6 * mixed);
    }
  }
}

// Central differences of the formula in double are not those of float32 models: along the gradient itself they are large enough to compare.
TEST(Distillation, GradientsAreTheSlopesOfTheLosses) {
  Pair pair;
  for (const bool all : {false, true}) {
    const auto batch = some_taught_batch(all);
    const auto signals = pair.signals(batch);
    for (const auto& objective : kObjectives) {
      pair.run(batch, objective, &signals, 1.0 / 80);
      const auto gradient = pair.adapters.gradients.clone(), begin = pair.adapters.parameters.clone();
      const double norm = gradient.norm().item<double>(), step = 2e-3;
      ASSERT_GT(norm, 0);
      const auto loss_at = [&](double distance) {
        pair.adapters.parameters.copy_(begin + (gradient * (distance / norm)).to(at::kFloat));
        return pair.run(batch, objective, &signals, 1.0 / 80).weighted_loss / 50;
      };
      const double slope = (loss_at(step) - loss_at(-step)) / (2 * step);
      pair.adapters.parameters.copy_(begin);
      EXPECT_NEAR(slope / norm, 1, 2e-3) << static_cast<int>(objective.divergence) << " " << objective.teacher_share << (all ? " all tokens" : "");
    }
  }
}

TEST(Distillation, TheMixtureIsTheSumOfItsParts) {
  Pair pair;
  const auto batch = test::some_batch(0, false);
  const auto signals = pair.signals(batch);
  const auto gradient_of = [&](double share) {
    pair.run(batch, {share, Divergence::kForwardKl}, &signals);
    return pair.adapters.gradients.clone();
  };
  const auto entropy = gradient_of(0), teacher = gradient_of(1), mixed = gradient_of(0.25);
  EXPECT_LT((mixed - 0.75 * entropy - 0.25 * teacher).norm().item<double>() / mixed.norm().item<double>(), 1e-6);
}

TEST(Distillation, MinifinetuningGivesEachTokenItsShare) {
  constexpr double kThreshold = 0.2;
  Pair pair;
  for (const bool all : {false, true}) {
    const auto batch = some_taught_batch(all);
    const auto signals = pair.signals(batch);
    const auto student = full_logits(*pair.student.decoder, batch), teacher = full_logits(*pair.teacher.decoder, batch);
    const auto taught = batch.taught_tokens();
    const auto p = at::softmax(teacher, 1), log_q = at::log_softmax(student, 1), kl_M = kl(p.log(), log_q);
    double loss = 0;
    int64_t labelled = 0;
    for (size_t m = 0; m < taught.size(); ++m) {
      const auto token = static_cast<int64_t>(m);
      const auto label = batch.labels_N[static_cast<size_t>(taught[m])];
      const double weight = batch.weights_N[static_cast<size_t>(taught[m])];
      double share = 1;
      if (label != kUnsupervised) {
        const double of_label = p[token][label].item<double>(), largest = p[token].max().item<double>();
        share = of_label < largest ? (1 - kThreshold) / (1 - of_label + largest) : std::max(0.0, 1 - of_label - kThreshold) / (1 - of_label);
        // What the formulas are for.
        const auto mixed = share * p[token];
        mixed[label] += 1 - share;
        if (of_label < largest) EXPECT_NEAR(mixed[label].item<double>() - mixed[p[token].argmax()].item<double>(), kThreshold, 1e-9);
        else EXPECT_NEAR(mixed[label].item<double>(), std::min(1.0, of_label + kThreshold), 1e-9);
        ++labelled;
        loss += weight * (1 - share) * -log_q[token][label].item<double>() / 50;
      }
      loss += weight * share * kl_M[token].item<double>() / 80;
    }
    ASSERT_GT(labelled, 0);
    const Objective objective{.teacher_share = 1, .minifinetuning = kThreshold};
    const auto result = pair.run(batch, objective, &signals, 1.0 / 80);
    EXPECT_NEAR(result.weighted_loss / 50, loss, 2e-6 * loss);
    const auto weights = weights_of(batch, taught);
    EXPECT_NEAR(result.weighted_divergence, (kl_M * weights).sum().item<double>(), 2e-6 * result.weighted_divergence);
    const auto plain = pair.run(batch, Objective{}, nullptr);
    EXPECT_NEAR(result.weighted_cross_entropy, plain.weighted_loss, 2e-6 * plain.weighted_loss);
  }
}

TEST(Distillation, MinifinetuningWhereTheTeacherIsRightAndWrong) {
  const auto logits = at::tensor({0.7, 0.2, 0.1, 0.95, 0.03, 0.02, 0.7, 0.2, 0.1, 0.7, 0.2, 0.1, 0.7, 0.2, 0.1}, at::kFloat).log().view({5, 3});
  const auto ones = std::make_shared<at::Tensor>(at::eye(3));
  const FrozenWeight identity(TensorType::kF32, 3, 3, static_cast<const std::byte*>(ones->const_data_ptr()), ones);
  const auto shares = minifinetuning_shares(logits, WholeHead(LinearHead(identity)), std::vector<int32_t>{0, 0, 1, kUnsupervised, 7}, 0.2, 1 << 20);
  const std::vector<double> expected = {1.0 / 3, 0, 0.8 / 1.5, 1, 0.8 / 1.7};   // a gain of 0.2; only 0.05 are left; a lead of 0.2; not supervised; a token that the teacher lacks
  ASSERT_EQ(shares.size(), expected.size());
  for (size_t m = 0; m < shares.size(); ++m) EXPECT_NEAR(shares[m], expected[m], 1e-6) << m;
}

TEST(Distillation, TheRestOfTheLikeliestTokensIsTheLabels) {
  SignalRows rows;
  rows.num_entries = 2;
  rows.ids_MK = {4, 7, 4, 7, 4, 7, 4, -1};
  for (const double p : {0.5, 0.3, 0.5, 0.3, 0.5, 0.3, 1.0, 1.0}) rows.log_probabilities_MK.push_back(static_cast<float>(std::log(p)));
  rows.tail_mass_M = {0.2f, 0.2f, 0.2f, 0};
  const auto moved = rest_to_labels(rows, std::vector<int32_t>{7, 9, kUnsupervised, 9});
  EXPECT_EQ(moved.num_entries, 3);
  EXPECT_EQ(moved.ids_MK, (std::vector<int32_t>{4, 7, -1, 4, 7, 9, 4, 7, -1, 4, -1, -1}));
  EXPECT_EQ(moved.tail_mass_M, (std::vector<float>{0, 0, 0.2f, 0}));
  EXPECT_NEAR(std::exp(moved.log_probabilities_MK[1]), 0.5, 1e-6);
  EXPECT_NEAR(std::exp(moved.log_probabilities_MK[5]), 0.2, 1e-6);
  EXPECT_EQ(moved.log_probabilities_MK[7], rows.log_probabilities_MK[5]);
}

TEST(Distillation, EqualModelsHaveNothingToLearn) {
  test::TinyModel model("llama");
  AdapterSet adapters(*model.decoder, Pair::options(), 3);   // B = 0
  const TeacherModel teacher(*model.decoder, adapters);
  const auto batch = test::some_batch(0, false);
  const auto signals = teacher.signals(batch);
  for (const auto& objective : kObjectives) {
    MicroBatchOptions options;
    options.objective = objective;
    options.objective.teacher_share = 1;
    options.teacher = &signals;
    adapters.gradients.zero_();
    EXPECT_LT(std::abs(run_micro_batch(*model.decoder, &adapters, batch, options).weighted_divergence), 1e-5);
    EXPECT_LT(adapters.gradients.abs().max().item<double>(), 1e-6);
  }
}

TEST(Distillation, SelfIsTheBaseWhateverWasTrained) {
  Pair pair;
  const TeacherModel teacher(*pair.student.decoder, pair.adapters);
  const auto batch = test::some_batch(0, false);
  pair.adapters.set_enabled(false);
  const auto base = taught_hidden(*pair.student.decoder, batch);
  pair.adapters.set_enabled(true);
  EXPECT_FALSE(at::equal(taught_hidden(*pair.student.decoder, batch), base));
  EXPECT_TRUE(at::equal(teacher.hidden(batch), base));
  EXPECT_FALSE(at::equal(taught_hidden(*pair.student.decoder, batch), base)) << "its adapters stayed off";
}

TEST(Distillation, RowsLearnTheSameAloneAndTogether) {
  Pair pair;
  const auto batch = test::some_batch(0, false);
  const auto signals = pair.signals(batch);
  const Objective objective{0.5, Divergence::kMixture};
  const double together = pair.run(batch, objective, &signals).weighted_loss;
  const auto gradients = pair.adapters.gradients.clone();
  double alone = 0;
  auto sum = at::zeros_like(gradients);
  for (size_t d = 0; d + 1 < batch.document_offsets.size(); ++d) {
    const auto begin = batch.document_offsets[d], end = batch.document_offsets[d + 1];
    Batch one;
    one.add_document({batch.tokens_N.begin() + begin, batch.tokens_N.begin() + end});
    one.labels_N.assign(batch.labels_N.begin() + begin, batch.labels_N.begin() + end);
    one.weights_N.assign(batch.weights_N.begin() + begin, batch.weights_N.begin() + end);
    const auto of_row = pair.signals(one);
    alone += pair.run(one, objective, &of_row).weighted_loss;
    sum += pair.adapters.gradients;
  }
  EXPECT_NEAR(alone, together, 1e-6 * together);
  EXPECT_LT((sum - gradients).norm().item<double>() / gradients.norm().item<double>(), 1e-5);
}

// ---- entries ---------------------------------------------------------------------------------------------------------------------------------------------------------

struct Entries {
  SignalRows rows;
  double entropy = 0;
};

Entries entries_of(const Decoder& teacher, const at::Tensor& hidden_MC, const SignalForm& form, double temperature, uint64_t seed = 1) {
  SignalEncoder encoder(form);
  EntryOptions options;
  options.form = form;
  options.temperature = temperature;
  options.seed = seed;
  options.row_key = 9;
  options.buffer_bytes = 4 * 258 * 7;   // several blocks
  Entries entries;
  entries.entropy = add_entries(encoder, hidden_MC, teacher.head(), options);
  decode_signals(form, encoder.take(), hidden_MC.size(0), "a test", entries.rows);
  return entries;
}

at::Tensor dense(const SignalRows& rows, int64_t vocab) {
  const auto tokens = static_cast<int64_t>(rows.tail_mass_M.size());
  auto probabilities = at::zeros({tokens, vocab}, at::kDouble);
  for (int64_t entry = 0; entry < tokens * rows.num_entries; ++entry) {
    const auto id = rows.ids_MK[static_cast<size_t>(entry)];
    if (id >= 0) probabilities[entry / rows.num_entries][id] += std::exp(static_cast<double>(rows.log_probabilities_MK[static_cast<size_t>(entry)]));
  }
  return probabilities;
}

TEST(SignalEntries, AreTheLikeliestTokensAndTheRest) {
  Pair pair;
  const auto hidden_MC = taught_hidden(*pair.teacher.decoder, test::some_batch(0, false));
  const int64_t vocab = pair.teacher.decoder->head().rows();
  for (const double temperature : {1.0, 2.0}) {
    const auto probabilities = at::softmax(head_logits(hidden_MC, pair.teacher.decoder->head()).to(at::kDouble) / temperature, 1);
    const auto entries = entries_of(*pair.teacher.decoder, hidden_MC, {SignalForm::Kind::kTop, 20, vocab}, temperature);
    const auto [values, ids] = probabilities.topk(20, 1);
    const auto kept = dense(entries.rows, vocab);
    const auto relative = (kept.gather(1, ids) / values - 1).abs().max().item<double>();
    EXPECT_LT(relative, 0.06);   // eight bits of each
    for (int64_t token = 0; token < hidden_MC.size(0); ++token) EXPECT_NEAR(entries.rows.tail_mass_M[static_cast<size_t>(token)], 1 - values[token].sum().item<double>(), 0.02);
    EXPECT_NEAR(entries.entropy, -(probabilities * probabilities.log()).sum().item<double>(), 1e-4 * entries.entropy);
  }
}

TEST(SignalEntries, DrawsAreTheTeachersOnAverage) {
  Pair pair;
  const auto batch = test::some_batch(0, false);
  const auto hidden_MC = taught_hidden(*pair.teacher.decoder, batch);
  const int64_t vocab = pair.teacher.decoder->head().rows();
  const auto probabilities = at::softmax(head_logits(hidden_MC, pair.teacher.decoder->head()).to(at::kDouble), 1);
  const SignalForm form{SignalForm::Kind::kDrawn, 50, vocab};
  constexpr int kSeeds = 400;
  auto sum = at::zeros_like(probabilities);
  for (uint64_t seed = 0; seed < kSeeds; ++seed) sum += dense(entries_of(*pair.teacher.decoder, hidden_MC, form, 1, seed).rows, vocab);
  // Of 20,000 draws a share p has a deviation of sqrt(p (1 - p) / 20,000).
  const auto deviations = ((sum / kSeeds - probabilities) / (probabilities * (1 - probabilities) / (50.0 * kSeeds)).sqrt()).abs();
  EXPECT_LT(deviations.max().item<double>(), 6);
  EXPECT_NEAR(deviations.pow(2).mean().item<double>(), 1, 0.1);
  const auto again = entries_of(*pair.teacher.decoder, hidden_MC, form, 1, 3), same = entries_of(*pair.teacher.decoder, hidden_MC, form, 1, 3);
  EXPECT_EQ(again.rows.ids_MK, same.rows.ids_MK);
}

// The gradient of cached draws, averaged, is that of the whole distribution; of the likeliest tokens and the rest it is another.
TEST(SignalEntries, GradientsOfDrawsConvergeToTheWholeDistributions) {
  Pair pair;
  const auto batch = test::some_batch(0, false);
  const auto online = pair.signals(batch);
  const Objective objective{1, Divergence::kForwardKl};
  pair.run(batch, objective, &online);
  const auto whole = pair.adapters.gradients.clone();
  const int64_t vocab = pair.teacher.decoder->head().rows();
  const auto error_of = [&](const SignalForm& form, int seeds) {
    auto sum = at::zeros_like(whole);
    for (int seed = 0; seed < seeds; ++seed) {
      TeacherSignals cached;
      cached.entries = entries_of(*pair.teacher.decoder, online.hidden_MC, form, 1, static_cast<uint64_t>(seed)).rows;
      pair.run(batch, objective, &cached);
      sum += pair.adapters.gradients;
    }
    return ((sum / seeds - whole).norm() / whole.norm()).item<double>();
  };
  const SignalForm draws{SignalForm::Kind::kDrawn, 50, vocab};
  const double one = error_of(draws, 1), many = error_of(draws, 100);
  EXPECT_GT(one, 0.02);
  EXPECT_LT(many, 0.2 * one);   // by the root of their number: a tenth
  EXPECT_LT(error_of({SignalForm::Kind::kTop, vocab - 1, vocab}, 1), 0.02);
  EXPECT_GT(error_of({SignalForm::Kind::kTop, 5, vocab}, 1), 0.05);
}

}  // namespace
}  // namespace graft
