#include "trainer/evaluation/classification_metrics.h"

#include <algorithm>
#include <cmath>

namespace graft {
namespace {

double ratio(int64_t part, int64_t whole) { return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole); }

std::vector<LabelScores> label_scores(int32_t num_labels, std::span<const int32_t> gold, std::span<const int32_t> predicted,
                                      std::span<const int64_t> rows) {
  std::vector<LabelScores> scores(static_cast<size_t>(num_labels));
  for (const auto row : rows) {
    const auto truth = gold[static_cast<size_t>(row)], answer = predicted[static_cast<size_t>(row)];
    ++scores[static_cast<size_t>(truth)].support;
    if (answer == kNoLabel) continue;
    ++scores[static_cast<size_t>(answer)].predicted;
    scores[static_cast<size_t>(answer)].correct += truth == answer;
  }
  for (auto& label : scores) {
    label.precision = ratio(label.correct, label.predicted);
    label.recall = ratio(label.correct, label.support);
    label.f1 = ratio(2 * label.correct, label.support + label.predicted);
  }
  return scores;
}

double macro_f1(const std::vector<LabelScores>& scores) {
  double sum = 0;
  int64_t count = 0;
  for (const auto& label : scores) {
    if (label.support + label.predicted == 0) continue;
    sum += label.f1;
    ++count;
  }
  return count == 0 ? 0 : sum / static_cast<double>(count);
}

}  // namespace

ClassificationScores score_classification(int32_t num_labels, std::span<const int32_t> gold, std::span<const int32_t> predicted,
                                          const BootstrapOptions& options) {
  const auto num_rows = static_cast<int64_t>(gold.size());
  ClassificationScores scores;
  scores.rows = num_rows;
  scores.confusion.assign(static_cast<size_t>(num_labels), std::vector<int64_t>(static_cast<size_t>(num_labels) + 1, 0));
  std::vector<int64_t> all(gold.size());
  for (size_t row = 0; row < gold.size(); ++row) {
    all[row] = static_cast<int64_t>(row);
    scores.without_label += predicted[row] == kNoLabel;
    ++scores.confusion[static_cast<size_t>(gold[row])][static_cast<size_t>(predicted[row] == kNoLabel ? num_labels : predicted[row])];
  }
  scores.per_label = label_scores(num_labels, gold, predicted, all);
  scores.accuracy = bootstrap(num_rows, [&](std::span<const int64_t> rows) {
    return ratio(std::count_if(rows.begin(), rows.end(), [&](int64_t row) { return gold[static_cast<size_t>(row)] == predicted[static_cast<size_t>(row)]; }),
                 static_cast<int64_t>(rows.size()));
  }, options);
  scores.macro_f1 = bootstrap(num_rows, [&](std::span<const int64_t> rows) { return macro_f1(label_scores(num_labels, gold, predicted, rows)); }, options);
  return scores;
}

double calibration_error(std::span<const double> confidence, std::span<const uint8_t> correct, int bins) {
  if (confidence.empty()) return 0;
  std::vector<double> sum(static_cast<size_t>(bins), 0), right(static_cast<size_t>(bins), 0);
  for (size_t row = 0; row < confidence.size(); ++row) {
    const auto bin = static_cast<size_t>(std::clamp(static_cast<int>(std::ceil(confidence[row] * bins)) - 1, 0, bins - 1));
    sum[bin] += confidence[row];
    right[bin] += correct[row];
  }
  double error = 0;   // |right - sum| / rows: the bin's share times the difference of its means
  for (size_t bin = 0; bin < sum.size(); ++bin) error += std::abs(right[bin] - sum[bin]);
  return error / static_cast<double>(confidence.size());
}

Abstention score_abstention(std::span<const double> confidence, std::span<const uint8_t> correct, double threshold) {
  Abstention result;
  result.threshold = threshold;
  result.rows = static_cast<int64_t>(confidence.size());
  int64_t right = 0;
  for (size_t row = 0; row < confidence.size(); ++row) {
    if (confidence[row] < threshold) continue;
    ++result.answered;
    right += correct[row];
  }
  result.coverage = ratio(result.answered, result.rows);
  result.accuracy = ratio(right, result.answered);
  return result;
}

}  // namespace graft
