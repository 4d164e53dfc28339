// Sections on quality: summary cards, before and after, answers, confusions, per label.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "trainer/report/html_text.h"
#include "trainer/report/report_sections.h"

namespace graft::report {
namespace {

using html::Json;

constexpr size_t kLargestMatrix = 24;      // labels; more are shown as the most frequent confusions
constexpr size_t kMostConfusions = 15;
constexpr size_t kMostAnswers = 30;

std::string card(std::string_view label, const std::string& value, const std::string& below, std::string_view kind = "") {
  return fmt::format("<div class=\"card {}\"><span>{}</span><b>{}</b><span>{}</span></div>\n", kind, html::escape(label), html::escape(value),
                     html::escape(below));
}

std::string bar_row(const std::string& name, double share, std::string_view kind, const std::string& after = {}) {
  return fmt::format(
      "<tr><td>{}</td><td class=\"track\"><div><span class=\"bar {}\" style=\"width:{:.1f}%\"></span></div></td><td class=\"n\">{}</td><td>{}</td></tr>\n",
      html::escape(name), kind, 100 * std::clamp(share, 0.0, 1.0), html::percent(share), after);
}

std::string interval_of(const Json& scores) {
  const Json& interval = html::child(scores, "accuracy_interval");
  if (!interval.is_array() || interval.size() != 2 || !interval[0].is_number() || !interval[1].is_number()) return {};
  return fmt::format("95 % interval {} to {}", html::percent(interval[0]), html::percent(interval[1]));
}

struct LabelScore {
  std::string label;
  double precision = 0, recall = 0, f1 = 0, support = 0;
};

using Matrix = std::vector<std::vector<double>>;

std::vector<std::string> labels_of(const Json& evaluation) {
  std::vector<std::string> labels;
  const Json& list = html::child(evaluation, "labels");
  if (list.is_array()) {
    for (const Json& label : list) labels.push_back(label.is_string() ? label.get<std::string>() : label.dump());
  }
  return labels;
}

// Rows are the expected labels; columns the answers, with one more where some answers are no label. Empty when malformed.
Matrix confusion_of(const Json& evaluation, size_t num_labels) {
  Matrix matrix;
  const Json& list = html::child(evaluation, "confusion");
  if (!list.is_array() || list.size() != num_labels) return {};
  for (const Json& row : list) {
    if (!row.is_array() || row.size() < num_labels || row.size() > num_labels + 1 || row.size() != list[0].size()) return {};
    std::vector<double> counts;
    for (const Json& count : row) {
      if (!count.is_number()) return {};
      counts.push_back(count.get<double>());
    }
    matrix.push_back(std::move(counts));
  }
  return matrix;
}

std::vector<LabelScore> label_scores(const Json& evaluation, const std::vector<std::string>& labels, const Matrix& matrix) {
  std::vector<LabelScore> scores;
  const Json& given = html::child(evaluation, "per_label");
  if (given.is_array() && !given.empty()) {
    for (const Json& one : given) {
      scores.push_back({html::text(one, "label"), html::number(one, "precision").value_or(0), html::number(one, "recall").value_or(0),
                        html::number(one, "f1").value_or(0), html::number(one, "support").value_or(0)});
    }
    return scores;
  }
  for (size_t i = 0; i < matrix.size(); ++i) {
    double expected = 0, answered = 0;
    for (const double count : matrix[i]) expected += count;
    for (const auto& row : matrix) answered += row[i];
    LabelScore score{labels[i], 0, 0, 0, expected};
    if (answered > 0) score.precision = matrix[i][i] / answered;
    if (expected > 0) score.recall = matrix[i][i] / expected;
    if (score.precision + score.recall > 0) score.f1 = 2 * score.precision * score.recall / (score.precision + score.recall);
    scores.push_back(score);
  }
  return scores;
}

std::string matrix_table(const std::vector<std::string>& labels, const Matrix& matrix) {
  const bool other = matrix[0].size() > labels.size();
  std::string table = "<h3>Confusions</h3><p class=\"lead\">Rows: the expected label. Columns: what the model answered, by the row's number.</p>"
                      "<div class=\"wide\"><table class=\"confusion\"><tr><th></th>";
  for (size_t i = 0; i < labels.size(); ++i) table += fmt::format("<th class=\"n\" title=\"{}\">{}</th>", html::escape(labels[i]), i + 1);
  table += other ? "<th class=\"n\">no label</th></tr>\n" : "</tr>\n";
  for (size_t i = 0; i < labels.size(); ++i) {
    double sum = 0;
    for (const double count : matrix[i]) sum += count;
    table += fmt::format("<tr><th class=\"row\">{} {}</th>", i + 1, html::escape(labels[i]));
    for (size_t j = 0; j < matrix[i].size(); ++j) {
      const double share = sum > 0 ? matrix[i][j] / sum : 0;
      if (matrix[i][j] == 0) table += "<td class=\"zero\">0</td>";
      else table += fmt::format("<td style=\"background:color-mix(in srgb,var({}) {:.0f}%,transparent)\">{}</td>", i == j ? "--one" : "--two",
                                (i == j ? 8 : 16) + (i == j ? 42 : 60) * share, html::count(matrix[i][j]));
    }
    table += "</tr>\n";
  }
  return table + "</table></div>";
}

std::string most_confused(const std::vector<std::string>& labels, const Matrix& matrix) {
  struct Pair {
    size_t expected, answered;
    double count;
  };
  std::vector<Pair> pairs;
  for (size_t i = 0; i < matrix.size(); ++i) {
    for (size_t j = 0; j < matrix[i].size(); ++j) {
      if (i != j && matrix[i][j] > 0) pairs.push_back({i, j, matrix[i][j]});
    }
  }
  if (pairs.empty()) return {};
  std::stable_sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) { return a.count > b.count; });
  std::string table = "<h3>Most frequent confusions</h3><div class=\"wide\"><table><tr><th>expected</th><th>answered</th><th class=\"n\">rows</th></tr>\n";
  for (size_t i = 0; i < std::min(pairs.size(), kMostConfusions); ++i) {
    const Pair& pair = pairs[i];
    table += fmt::format("<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td></tr>\n", html::escape(labels[pair.expected]),
                         pair.answered < labels.size() ? html::escape(labels[pair.answered]) : "<i>no label</i>", html::count(pair.count));
  }
  return table + "</table></div>";
}

std::string label_table(const std::vector<LabelScore>& scores) {
  std::string table = "<h3>Per label</h3><div class=\"wide\"><table class=\"bars\"><tr><th>label</th><th class=\"track\">F1</th><th class=\"n\"></th><th class=\"n\">precision</th>"
                      "<th class=\"n\">recall</th><th class=\"n\">rows</th></tr>\n";
  for (const LabelScore& score : scores) {
    table += fmt::format(
        "<tr><td>{}</td><td class=\"track\"><div><span class=\"bar\" style=\"width:{:.1f}%\"></span></div></td><td class=\"n\">{}</td><td class=\"n\">{}</td>"
        "<td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n",
        html::escape(score.label), 100 * std::clamp(score.f1, 0.0, 1.0), html::percent(score.f1), html::percent(score.precision),
        html::percent(score.recall), html::count(score.support));
  }
  return table + "</table></div>";
}

std::string answers_table(const Json& answers) {
  std::string table = "<h3>Answers before and after</h3><div class=\"wide\"><table class=\"answers\"><tr><th>prompt</th><th>expected</th><th>before</th><th>after</th></tr>\n";
  size_t shown = 0;
  for (const Json& answer : answers) {
    if (shown++ == kMostAnswers) break;
    const std::string expected = html::text(answer, "expected");
    const auto cell = [&](const char* key) {
      const std::string text = html::text(answer, key);
      return fmt::format("<td class=\"{}\">{}</td>", expected.empty() ? "" : text == expected ? "right" : "wrong", html::escape(text));
    };
    table += fmt::format("<tr><td>{}</td><td>{}</td>{}{}</tr>\n", html::escape(html::text(answer, "prompt")), html::escape(expected), cell("before"),
                         cell("after"));
  }
  return table + "</table></div>";
}

std::string other_scores(const Json& before, const Json& after) {
  static const std::pair<const char*, const char*> kNames[] = {
      {"loss", "loss (nats a token)"}, {"perplexity", "perplexity"}, {"calibration_error", "calibration error"}, {"rows", "rows scored"}};
  std::string table;
  for (const auto& [key, name] : kNames) {
    const auto old = html::number(before, key), now = html::number(after, key);
    if (!old && !now) continue;
    const auto cell = [](const std::optional<double>& value) {
      return !value ? std::string("–") : *value == std::floor(*value) ? html::count(*value) : html::small_number(*value);
    };
    table += fmt::format("<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n", name, cell(old), cell(now));
  }
  if (table.empty()) return {};
  return "<h3>Other scores</h3><div class=\"wide\"><table class=\"compact\"><tr><th></th><th class=\"n\">base</th><th class=\"n\">fine-tuned</th></tr>\n" + table + "</table></div>";
}

std::string interval_text(const Json& difference, const char* key) {
  const auto value = html::number(difference, key);
  const Json& interval = html::child(difference, "interval");
  if (!value || !interval.is_array() || interval.size() != 2) return {};
  return fmt::format("{:+.1f} points [{:+.1f}, {:+.1f}]", 100 * *value, 100 * interval[0].get<double>(), 100 * interval[1].get<double>());
}

// From the teacher and other runs on the same rows, what answers cost, and what was forgotten.
std::string differences(const Json& evaluation) {
  std::string lines;
  const auto add = [&](const std::string& name, const std::string& value) {
    if (!value.empty()) lines += fmt::format("<dt>{}</dt><dd>{}</dd>", html::escape(name), html::escape(value));
  };
  const Json& from_teacher = html::child(evaluation, "student_minus_teacher");
  add("accuracy, from the teacher's", interval_text(from_teacher, "accuracy"));
  if (const auto same = html::number(from_teacher, "same_answers")) add("the same answer as the teacher", html::percent(*same));
  const Json& compared = html::child(evaluation, "compared");
  add(fmt::format("accuracy, from that of run {}", html::text(compared, "run")), interval_text(compared, "difference"));
  for (const auto& [key, name] : {std::pair{"after", "this model"}, std::pair{"teacher", "the teacher"}}) {
    const Json& side = html::child(html::child(evaluation, "speed"), key);
    const auto speed = html::number(side, "tokens_per_s"), cost = html::number(side, "cost_per_million_tokens");
    if (speed) add(fmt::format("{}: tokens of prompts answered", name), fmt::format("{} a second here{}", html::count(std::round(*speed)), cost ? fmt::format("; a million costs {:.3g}", *cost) : ""));
  }
  const Json& forgetting = html::child(evaluation, "forgetting");
  if (const auto after = html::number(forgetting, "perplexity_after")) {
    add("perplexity on data.general", fmt::format("{:.2f}, base {:.2f}", *after, html::number(forgetting, "perplexity_before").value_or(NAN)));
    add("KL from the base there", fmt::format("{:.4f} nats a token", html::number(forgetting, "kl_from_base").value_or(NAN)));
  }
  return lines.empty() ? std::string() : "<h3>Beside others</h3><dl>" + lines + "</dl>";
}

}  // namespace

std::string section(std::string_view id, std::string_view heading, std::string_view lead, const std::string& content) {
  if (content.empty()) return {};
  return fmt::format("<section id=\"{}\"><h2>{}</h2>\n{}{}</section>\n", id, html::escape(heading),
                     lead.empty() ? "" : fmt::format("<p class=\"lead\">{}</p>\n", html::escape(lead)), content);
}

std::string summary(const ReportData& data) {
  std::string cards;
  const Json &before = html::child(data.evaluation, "before"), &after = html::child(data.evaluation, "after");
  if (const auto accuracy = html::number(after, "accuracy")) {
    const auto base = html::number(before, "accuracy");
    cards += card("Accuracy on test rows", html::percent(*accuracy), base ? "base model: " + html::percent(*base) : interval_of(after));
  }
  double first = NAN, last = NAN;
  for (const Json& line : data.metrics) {
    if (const auto loss = html::number(line, "validation_loss")) {
      if (std::isnan(first)) first = *loss;
      last = *loss;
    }
  }
  if (!std::isnan(last)) cards += card("Validation loss", html::small_number(last), "first: " + html::small_number(first) + " nats a token");
  if (!data.certificates.empty()) {
    size_t passed = 0;
    for (const auto& [name, certificate] : data.certificates) passed += html::child(certificate, "passed") == Json(true);
    const bool all = passed == data.certificates.size();
    cards += card("Served = trained", fmt::format("{} of {}", passed, data.certificates.size()),
                  all ? "exports proven equal" : "exports proven equal; see below", all ? "good" : "bad");
  }
  double seconds = 0, tokens = 0;
  for (const Json& line : data.metrics) {
    seconds += html::number(line, "seconds").value_or(0);
    tokens += html::number(line, "tokens").value_or(0);
  }
  if (!data.metrics.empty()) {
    const double total = html::number(data.manifest, "seconds").value_or(seconds);
    cards += card("Training", html::minutes(total), fmt::format("{} steps, {} tokens", html::count(static_cast<double>(data.metrics.size())), html::count(tokens)));
  }
  if (const auto memory = html::number(data.manifest, "peak_memory_bytes")) cards += card("Peak memory", html::bytes(*memory), "of the training process");
  if (const auto memory = html::number(data.manifest, "peak_device_memory_bytes")) cards += card("Peak GPU memory", html::bytes(*memory), "of tensors in training");
  return cards.empty() ? "" : "<div class=\"cards\">\n" + cards + "</div>\n";
}

std::string results(const ReportData& data) {
  const Json &before = html::child(data.evaluation, "before"), &after = html::child(data.evaluation, "after");
  std::string bars;
  const auto add = [&](const char* key, const char* name) {
    if (const auto score = html::number(before, key)) bars += bar_row(fmt::format("base model, {}", name), *score, "before");
    if (const auto score = html::number(after, key)) {
      bars += bar_row(fmt::format("fine-tuned, {}", name), *score, "", std::string_view(key) == "accuracy" ? interval_of(after) : "");
      if (const auto of_teacher = html::number(html::child(data.evaluation, "teacher"), key)) bars += bar_row(fmt::format("teacher, {}", name), *of_teacher, "before");
    }
  };
  add("accuracy", "accuracy");
  const Json& baselines = html::child(data.evaluation, "baselines");
  if (baselines.is_array()) {
    for (const Json& baseline : baselines) {
      if (const auto score = html::number(baseline, "accuracy")) bars += bar_row(html::text(baseline, "name") + ", accuracy", *score, "before");
    }
  }
  const Json& compared = html::child(data.evaluation, "compared");
  if (const auto score = html::number(compared, "accuracy")) bars += bar_row(fmt::format("run {}, accuracy", html::text(compared, "run")), *score, "before");
  add("macro_f1", "macro-F1");
  std::string content;
  if (!bars.empty()) content += "<div class=\"wide\"><table class=\"bars\">" + bars + "</table></div>";
  content += other_scores(before, after);
  content += differences(data.evaluation);
  const Json& answers = html::child(data.evaluation, "answers");
  if (data.examples && answers.is_array() && !answers.empty()) content += answers_table(answers);
  return section("results", "Results", "Scored on test rows that were never used for training or for choosing a checkpoint.", content);
}

std::string errors(const ReportData& data) {
  const auto labels = labels_of(data.evaluation);
  const Matrix matrix = confusion_of(data.evaluation, labels.size());
  std::string content;
  if (!matrix.empty()) content += labels.size() <= kLargestMatrix ? matrix_table(labels, matrix) : most_confused(labels, matrix);
  if (const auto scores = label_scores(data.evaluation, labels, matrix); !scores.empty()) content += label_table(scores);
  return section("errors", "Where it errs", "The test rows by label.", content);
}

}  // namespace graft::report
