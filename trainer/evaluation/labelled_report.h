// What a labelled evaluation says: scores of both ways of answering, as a table for people and as JSON.
#pragma once
#include <optional>
#include <span>
#include <string>

#include <nlohmann/json.hpp>

#include "data/rows/dataset.h"
#include "trainer/evaluation/classification_metrics.h"
#include "trainer/evaluation/labelled.h"

namespace graft {

struct LabelledReport {
  std::vector<std::string> labels;
  std::optional<ClassificationScores> greedy, best;   // by free greedy decoding; by the most probable label
  double calibration_error = 0;                       // of `best`, 15 bins of p(best)
  std::optional<Abstention> abstention;               // of `best`
  const ClassificationScores& main() const { return greedy ? *greedy : *best; }
};

LabelledReport report_of(const LabelledEvaluation& evaluation, const LabelledOptions& options, std::optional<double> threshold = std::nullopt,
                         const BootstrapOptions& bootstrap = {});

// At most 100 columns. Per label and confusions are of main().
std::string report_table(const LabelledReport& report);

// {"rows", "accuracy", "accuracy_interval": [low, high], "macro_f1", "macro_f1_interval", "calibration_error"?, "abstention"?,
//  "greedy": {...}, "most_probable": {...}}: the first ones of main().
nlohmann::ordered_json report_json(const LabelledReport& report);

// evaluation.json as trainer/report/html_report.h reads it. before: the base, where it was evaluated: on `rows` too, or on some of
// them, and then its single answers are left out. examples: how many rows stand in it with their texts, wrong answers of `before` first; users' texts go into no file unless they ask for it.
struct EvaluatedModel {
  const LabelledEvaluation& evaluation;
  const LabelledReport& report;
};
nlohmann::ordered_json evaluation_json(const std::optional<EvaluatedModel>& before, const EvaluatedModel& after, std::span<const Row> rows, int64_t examples);

}  // namespace graft
