// What classification answers are worth. A prediction is an index of `labels`, or kNoLabel: an answer that is none of them, which is wrong and
// belongs to no class (it lowers recall, no precision).
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "trainer/evaluation/bootstrap.h"

namespace graft {

constexpr int32_t kNoLabel = -1;

struct LabelScores {
  int64_t support = 0, predicted = 0, correct = 0;   // rows of the label, answers with it, both
  double precision = 0, recall = 0, f1 = 0;          // 0 where undefined
};

struct ClassificationScores {
  int64_t rows = 0, without_label = 0;
  Interval accuracy;
  Interval macro_f1;                                 // mean F1 over labels that occur in rows or answers
  std::vector<LabelScores> per_label;                // [labels]
  std::vector<std::vector<int64_t>> confusion;       // [gold][predicted]; the last column: no label
};

// gold[i] and predicted[i] of row i; gold is never kNoLabel.
ClassificationScores score_classification(int32_t num_labels, std::span<const int32_t> gold, std::span<const int32_t> predicted,
                                          const BootstrapOptions& options = {});

// Expected calibration error (Guo et al. 2017, arXiv 1706.04599): rows in `bins` equal bins (k/bins, (k+1)/bins] of their confidence;
// sum over bins of share of rows * |accuracy - mean confidence|.
double calibration_error(std::span<const double> confidence, std::span<const uint8_t> correct, int bins = 15);

struct Abstention {
  double threshold = 0;
  int64_t answered = 0, rows = 0;
  double coverage = 0;      // answered / rows
  double accuracy = 0;      // of the answered; 0 when there are none
};
// Answered: confidence >= threshold.
Abstention score_abstention(std::span<const double> confidence, std::span<const uint8_t> correct, double threshold);

}  // namespace graft
