#include <cmath>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "kernels/common/error.h"
#include "tests/support/files.h"
#include "trainer/evaluation/classification_metrics.h"
#include "trainer/evaluation/label_trie.h"
#include "trainer/generation/sampling.h"

namespace graft {
namespace {

// A made-up language model: log p(token | path) over 8 tokens, a pure function of the path.
double toy_log_probability(uint64_t seed, std::span<const int32_t> path, int32_t token) {
  uint64_t key = seed;
  for (const auto step : path) key = key * 31 + static_cast<uint64_t>(step) + 1;
  double sum = 0, chosen = 0;
  for (int32_t other = 0; other < 8; ++other) {
    const double weight = std::exp(6 * counter_uniform(seed, key, static_cast<uint64_t>(other)));
    sum += weight;
    if (other == token) chosen = weight;
  }
  return std::log(chosen / sum);
}

double toy_sum(uint64_t seed, const std::vector<int32_t>& label) {
  double sum = 0;
  for (size_t i = 0; i < label.size(); ++i) sum += toy_log_probability(seed, std::span(label).first(i), label[i]);
  return sum;
}

TEST(LabelTrie, BestFirstFindsTheLabelThatBruteForceFinds) {
  size_t expanded = 0, all = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    std::vector<std::vector<int32_t>> labels;   // up to 30, of 1 to 5 tokens; some begin others, some share long chains
    for (uint64_t index = 0; index < 30; ++index) {
      std::vector<int32_t> label;
      const auto length = 1 + static_cast<size_t>(5 * counter_uniform(seed, index, 99));
      for (size_t i = 0; i < length; ++i) label.push_back(static_cast<int32_t>(3 * counter_uniform(seed, index, i)));
      if (std::find(labels.begin(), labels.end(), label) == labels.end()) labels.push_back(label);
    }
    const LabelTrie trie(labels);
    LabelSearch search(trie);
    for (auto chain = search.next(); !chain.empty(); chain = search.next()) {
      expanded += chain.size();
      search.expand(chain, [&](size_t place, int32_t token) { return toy_log_probability(seed, trie.path(chain[place]), token); });
    }
    int32_t best = 0;
    for (size_t label = 1; label < labels.size(); ++label) {
      if (toy_sum(seed, labels[label]) > toy_sum(seed, labels[static_cast<size_t>(best)])) best = static_cast<int32_t>(label);
      all += labels[label].size();
    }
    ASSERT_EQ(search.best(), best) << "seed " << seed;
    EXPECT_NEAR(search.best_log_probability(), toy_sum(seed, labels[static_cast<size_t>(best)]), 1e-12);
    const auto bounds = search.bounds();
    for (size_t label = 0; label < labels.size(); ++label) {
      EXPECT_LE(bounds[label].lower, toy_sum(seed, labels[label]) + 1e-12);
      EXPECT_GE(bounds[label].upper, toy_sum(seed, labels[label]) - 1e-12);
    }
  }
  EXPECT_LT(expanded, all / 4);   // it does not look at everything
}

TEST(LabelTrie, LabelsWithTheSameTokensOrNoneAreErrors) {
  EXPECT_THROW(LabelTrie(std::vector<std::vector<int32_t>>{{1, 2}, {1, 2}}), UserError);
  EXPECT_THROW(LabelTrie(std::vector<std::vector<int32_t>>{{1, 2}, {}}), UserError);
}

TEST(ClassificationMetrics, HandComputed) {
  //                                   three labels; label 2 is never right, one answer is no label
  const std::vector<int32_t> gold = {0, 0, 0, 1, 1, 2}, predicted = {0, 0, 1, 1, kNoLabel, 1};
  const auto scores = score_classification(4, gold, predicted);
  EXPECT_DOUBLE_EQ(scores.accuracy.value, 0.5);
  EXPECT_EQ(scores.without_label, 1);
  EXPECT_DOUBLE_EQ(scores.per_label[0].precision, 1);
  EXPECT_DOUBLE_EQ(scores.per_label[0].recall, 2.0 / 3);
  EXPECT_DOUBLE_EQ(scores.per_label[0].f1, 0.8);
  EXPECT_DOUBLE_EQ(scores.per_label[1].precision, 1.0 / 3);
  EXPECT_DOUBLE_EQ(scores.per_label[1].f1, 0.4);
  EXPECT_DOUBLE_EQ(scores.macro_f1.value, (0.8 + 0.4 + 0) / 3);   // label 3 occurs nowhere
  EXPECT_EQ(scores.confusion[1], (std::vector<int64_t>{0, 1, 0, 0, 1}));
  EXPECT_EQ(scores.confusion[2], (std::vector<int64_t>{0, 1, 0, 0, 0}));
}

TEST(ClassificationMetrics, AsScikitLearn) {
  nlohmann::json request = {{"labels", 7}};
  std::vector<int32_t> gold, predicted;
  for (uint64_t row = 0; row < 300; ++row) {
    gold.push_back(static_cast<int32_t>(6 * counter_uniform(1, row, 0)));   // label 6 is only ever predicted
    predicted.push_back(counter_uniform(1, row, 1) < 0.5 ? gold.back() : static_cast<int32_t>(8 * counter_uniform(1, row, 2)) - 1);
  }
  request["gold"] = gold;
  request["predicted"] = predicted;
  const test::TemporaryFolder folder;
  test::write_file(folder / "case.json", request.dump());
  const auto expected = nlohmann::json::parse(test::run_python("tests/trainer/torch/evaluation_metrics_reference.py", {(folder / "case.json").string()}));
  const auto scores = score_classification(7, gold, predicted);
  EXPECT_NEAR(scores.accuracy.value, expected["accuracy"].get<double>(), 1e-12);
  EXPECT_NEAR(scores.macro_f1.value, expected["macro_f1"].get<double>(), 1e-12);
  for (size_t label = 0; label < 7; ++label) {
    EXPECT_NEAR(scores.per_label[label].precision, expected["precision"][label].get<double>(), 1e-12);
    EXPECT_NEAR(scores.per_label[label].recall, expected["recall"][label].get<double>(), 1e-12);
    EXPECT_NEAR(scores.per_label[label].f1, expected["f1"][label].get<double>(), 1e-12);
    EXPECT_EQ(scores.per_label[label].support, expected["support"][label].get<int64_t>());
    EXPECT_EQ(nlohmann::json(scores.confusion[label]), expected["confusion"][label]);
  }
}

TEST(CalibrationError, HandComputed) {
  // Two bins: (0, 0.5] holds 0.4 and 0.5, one right; (0.5, 1] holds 0.9 and 1.0, both right.
  const std::vector<double> confidence = {0.4, 0.5, 0.9, 1.0};
  const std::vector<uint8_t> correct = {1, 0, 1, 1};
  EXPECT_NEAR(calibration_error(confidence, correct, 2), 0.5 * std::abs(0.5 - 0.45) + 0.5 * std::abs(1 - 0.95), 1e-12);
  EXPECT_EQ(calibration_error({}, {}), 0);
}

TEST(Abstention, CountsAnswersAtOrAboveTheThreshold) {
  const std::vector<double> confidence = {0.4, 0.5, 0.9, 1.0};
  const auto scores = score_abstention(confidence, std::vector<uint8_t>{1, 0, 1, 1}, 0.5);
  EXPECT_EQ(scores.answered, 3);
  EXPECT_DOUBLE_EQ(scores.coverage, 0.75);
  EXPECT_DOUBLE_EQ(scores.accuracy, 2.0 / 3);
  EXPECT_EQ(score_abstention(confidence, std::vector<uint8_t>{1, 0, 1, 1}, 1.5).answered, 0);
}

TEST(Bootstrap, IsDeterministicAndCoversTheBinomialInterval) {
  const auto share = [](std::span<const int64_t> rows) {   // 80 of 400 rows
    double hits = 0;
    for (const auto row : rows) hits += row < 80;
    return hits / static_cast<double>(rows.size());
  };
  const auto interval = bootstrap(400, share), again = bootstrap(400, share), other = bootstrap(400, share, {.seed = 1});
  EXPECT_EQ(interval.value, 0.2);
  EXPECT_EQ(interval.low, again.low);
  EXPECT_EQ(interval.high, again.high);
  EXPECT_NE(std::make_pair(interval.low, interval.high), std::make_pair(other.low, other.high));
  EXPECT_NEAR(interval.low, 0.2 - 1.96 * 0.02, 0.005);   // standard error of 400 rows: 0.02
  EXPECT_NEAR(interval.high, 0.2 + 1.96 * 0.02, 0.005);
  EXPECT_EQ(bootstrap(0, share).value, 0);
}

}  // namespace
}  // namespace graft
