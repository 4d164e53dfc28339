#include "trainer/evaluation/labelled_report.h"

#include <algorithm>

#include <fmt/format.h>


namespace graft {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kLabelColumns = 40, kConfusions = 10;

std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }
std::string with_interval(const Interval& interval) {
  return fmt::format("{} ({:.1f} to {:.1f})", percent(interval.value), 100 * interval.low, 100 * interval.high);
}

// At most `columns` characters; the middle of a longer text is left out.
std::string shortened(const std::string& text, size_t columns) {
  std::vector<size_t> starts;   // of characters
  for (size_t at = 0; at < text.size(); ++at) {
    if ((static_cast<unsigned char>(text[at]) & 0xC0) != 0x80) starts.push_back(at);
  }
  if (starts.size() <= columns) return text + std::string(columns - starts.size(), ' ');
  const size_t tail = columns / 3, head = columns - tail - 1;
  return text.substr(0, starts[head]) + "…" + text.substr(starts[starts.size() - tail]);
}
std::string unpadded(const std::string& text, size_t columns) {
  auto cut = shortened(text, columns);
  while (cut.ends_with(' ')) cut.pop_back();
  return cut;
}

std::string label_name(const LabelledReport& report, size_t answer) { return answer < report.labels.size() ? report.labels[answer] : "(no label)"; }

void add_methods(std::string& text, const LabelledReport& report) {
  const auto line = [&](const char* name, const auto& value) {
    text += fmt::format("{:<26}", name);
    if (report.greedy) text += fmt::format("{:<32}", value(*report.greedy, true));
    if (report.best) text += value(*report.best, false);
    while (text.ends_with(' ')) text.pop_back();
    text += '\n';
  };
  line("", [](const ClassificationScores&, bool greedy) { return std::string(greedy ? "free greedy answer" : "most probable label"); });
  line("accuracy", [](const ClassificationScores& scores, bool) { return with_interval(scores.accuracy); });
  line("macro-F1", [](const ClassificationScores& scores, bool) { return with_interval(scores.macro_f1); });
  if (report.greedy) line("answers that are no label", [](const ClassificationScores& scores, bool greedy) { return greedy ? std::to_string(scores.without_label) : ""; });
  if (report.best) line("calibration error", [&](const ClassificationScores&, bool greedy) { return greedy ? "" : fmt::format("{:.3f}", report.calibration_error); });
  if (report.abstention) {
    text += fmt::format("at threshold {}: answers {} of the rows, {} of the answers are right\n", report.abstention->threshold,
                        percent(report.abstention->coverage), percent(report.abstention->accuracy));
  }
}

void add_labels(std::string& text, const LabelledReport& report) {
  const auto& scores = report.main();
  text += fmt::format("\n{:<{}}  rows  precision  recall     F1  answered instead\n", "label", kLabelColumns);
  for (size_t label = 0; label < report.labels.size(); ++label) {
    const auto& own = scores.per_label[label];
    if (own.support + own.predicted == 0) continue;
    auto row = scores.confusion[label];
    row[label] = 0;
    const auto worst = std::max_element(row.begin(), row.end());
    text += fmt::format("{}  {:>4}  {:>9.1f}  {:>6.1f}  {:>5.1f}", shortened(report.labels[label], kLabelColumns), own.support, 100 * own.precision,
                        100 * own.recall, 100 * own.f1);
    if (*worst > 0) text += fmt::format("  {} × {}", *worst, unpadded(label_name(report, static_cast<size_t>(worst - row.begin())), 20));
    text += '\n';
  }
}

void add_confusions(std::string& text, const LabelledReport& report) {
  struct Confusion {
    int64_t count;
    size_t gold, answer;
  };
  std::vector<Confusion> all;
  const auto& matrix = report.main().confusion;
  for (size_t gold = 0; gold < matrix.size(); ++gold) {
    for (size_t answer = 0; answer < matrix[gold].size(); ++answer) {
      if (answer != gold && matrix[gold][answer] > 0) all.push_back({matrix[gold][answer], gold, answer});
    }
  }
  if (all.empty()) return;
  std::stable_sort(all.begin(), all.end(), [](const Confusion& a, const Confusion& b) { return a.count > b.count; });
  text += "\nmost frequent confusions (label -> answer)\n";
  for (size_t i = 0; i < std::min(all.size(), kConfusions); ++i) {
    text += fmt::format("{:>6}  {} -> {}\n", all[i].count, unpadded(report.labels[all[i].gold], 42), unpadded(label_name(report, all[i].answer), 42));
  }
}

Json scores_json(const ClassificationScores& scores) {
  return {{"rows", scores.rows},
          {"accuracy", scores.accuracy.value},
          {"accuracy_interval", {scores.accuracy.low, scores.accuracy.high}},
          {"macro_f1", scores.macro_f1.value},
          {"macro_f1_interval", {scores.macro_f1.low, scores.macro_f1.high}},
          {"without_label", scores.without_label}};
}

std::string answer_text(const LabelledEvaluation& evaluation, size_t row) {
  const auto& answer = evaluation.answers[row];
  return answer.text.empty() && answer.best >= 0 ? evaluation.labels[static_cast<size_t>(answer.best)] : answer.text;
}

bool is_right(const LabelledAnswer& answer, const LabelledReport& report) { return (report.greedy ? answer.greedy : answer.best) == answer.gold; }

}  // namespace

LabelledReport report_of(const LabelledEvaluation& evaluation, const LabelledOptions& options, std::optional<double> threshold,
                         const BootstrapOptions& bootstrap) {
  LabelledReport report;
  report.labels = evaluation.labels;
  std::vector<int32_t> gold, greedy, best;
  std::vector<double> confidence;
  std::vector<uint8_t> right;
  for (const auto& answer : evaluation.answers) {
    gold.push_back(answer.gold);
    greedy.push_back(answer.greedy);
    best.push_back(answer.best);
    confidence.push_back(answer.confidence());
    right.push_back(answer.best == answer.gold);
  }
  const auto num_labels = static_cast<int32_t>(evaluation.labels.size());
  if (options.greedy) report.greedy = score_classification(num_labels, gold, greedy, bootstrap);
  if (options.labels) {
    report.best = score_classification(num_labels, gold, best, bootstrap);
    report.calibration_error = calibration_error(confidence, right);
    if (threshold) report.abstention = score_abstention(confidence, right, *threshold);
  }
  return report;
}

std::string report_table(const LabelledReport& report) {
  std::string text;
  add_methods(text, report);
  add_labels(text, report);
  add_confusions(text, report);
  return text;
}

Json report_json(const LabelledReport& report) {
  Json json = scores_json(report.main());
  if (report.best) json["calibration_error"] = report.calibration_error;
  if (report.abstention) {
    json["abstention"] = {{"threshold", report.abstention->threshold},
                          {"answered", report.abstention->answered},
                          {"coverage", report.abstention->coverage},
                          {"accuracy", report.abstention->accuracy}};
  }
  if (report.greedy) json["greedy"] = scores_json(*report.greedy);
  if (report.best) json["most_probable"] = scores_json(*report.best);
  return json;
}

Json evaluation_json(const std::optional<EvaluatedModel>& before, const EvaluatedModel& after, std::span<const Row> rows, int64_t examples) {
  Json json = Json::object();
  if (before) json["before"] = report_json(before->report);
  json["after"] = report_json(after.report);
  json["labels"] = after.report.labels;
  json["confusion"] = after.report.main().confusion;
  json["per_label"] = Json::array();
  for (size_t label = 0; label < after.report.labels.size(); ++label) {
    const auto& scores = after.report.main().per_label[label];
    json["per_label"].push_back({{"label", after.report.labels[label]},
                                 {"precision", scores.precision},
                                 {"recall", scores.recall},
                                 {"f1", scores.f1},
                                 {"support", scores.support}});
  }
  if (examples <= 0) return json;
  std::vector<size_t> order(rows.size());
  for (size_t row = 0; row < order.size(); ++row) order[row] = row;
  const bool side_by_side = before && before->evaluation.answers.size() == rows.size();
  if (side_by_side) {
    std::stable_partition(order.begin(), order.end(), [&](size_t row) { return !is_right(before->evaluation.answers[row], before->report); });
  }
  order.resize(std::min(order.size(), static_cast<size_t>(examples)));
  json["answers"] = Json::array();
  for (const auto row : order) {
    const auto gold = static_cast<size_t>(after.evaluation.answers[row].gold);
    json["answers"].push_back({{"prompt", rows[row].text}, {"expected", after.evaluation.labels[gold]}, {"after", answer_text(after.evaluation, row)}});
    if (side_by_side) json["answers"].back()["before"] = answer_text(before->evaluation, row);
  }
  return json;
}

}  // namespace graft
