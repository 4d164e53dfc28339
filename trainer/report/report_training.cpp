// Sections on the run itself: curves, rows and mask, memory and tensors.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "trainer/report/html_text.h"
#include "trainer/report/report_sections.h"
#include "trainer/report/svg_plot.h"

namespace graft::report {
namespace {

using html::Json;
using Points = std::vector<std::pair<double, double>>;

constexpr size_t kFewPoints = 30;        // below this a line needs no smoothing
constexpr size_t kMostLabels = 40, kMostTensors = 400, kMostTokens = 4000;

Points curve(const std::vector<Json>& metrics, std::string_view key) {
  Points points;
  for (const Json& line : metrics) {
    const auto step = html::number(line, "step");
    if (step && html::child(line, key).is_number()) points.emplace_back(*step, html::child(line, key).get<double>());
    else if (step && html::child(line, key).is_null() && line.contains(std::string(key))) points.emplace_back(*step, NAN);   // JSON has no NaN
  }
  return points;
}

std::string described(std::string_view what, const Points& points, std::string (*format)(double)) {
  if (points.empty()) return {};
  const auto by_y = [](const auto& a, const auto& b) { return a.second < b.second; };
  const auto [low, high] = std::minmax_element(points.begin(), points.end(), by_y);
  return fmt::format("{} over {} steps: first {}, last {}, lowest {} at step {:.0f}, highest {}. ", what, points.size(), format(points.front().second),
                     format(points.back().second), format(low->second), low->first, format(high->second));
}

std::string loss_plot(const std::vector<Json>& metrics) {
  const Points loss = curve(metrics, "loss"), validation = curve(metrics, "validation_loss");
  std::vector<PlotSeries> series;
  const bool many = loss.size() >= kFewPoints;
  series.push_back({many ? "each step" : "training", loss, 0, many, false});
  if (many) series.push_back({"smoothed", smoothed(loss, static_cast<double>(loss.size()) / 60), 0, false, false});
  if (!validation.empty()) series.push_back({"validation", validation, 1, false, true});
  return line_plot({"Loss, nats a token", described("Training loss", loss, html::small_number) + described("Validation loss", validation, html::small_number), "step"},
                   series, YAxis::kLogIfWide);
}

std::string single_plot(const std::vector<Json>& metrics, const char* key, const char* title, std::string (*format)(double)) {
  const Points points = curve(metrics, key);
  return line_plot({title, described(title, points, format), "step"}, {{"", points, 0, false, false}}, YAxis::kFromZero);
}

std::string label_bars(const Json& labels) {
  if (!labels.is_object() || labels.empty()) return {};
  std::vector<std::pair<std::string, double>> counts;
  double highest = 1;
  for (const auto& [label, count] : labels.items()) {
    if (!count.is_number()) continue;
    counts.emplace_back(label, count.get<double>());
    highest = std::max(highest, counts.back().second);
  }
  std::stable_sort(counts.begin(), counts.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  std::string table = "<h3>Rows per label</h3><div class=\"wide\"><table class=\"bars\">";
  for (size_t i = 0; i < std::min(counts.size(), kMostLabels); ++i) {
    table += fmt::format("<tr><td>{}</td><td class=\"track\"><div><span class=\"bar\" style=\"width:{:.1f}%\"></span></div></td><td class=\"n\">{}</td></tr>\n",
                         html::escape(counts[i].first), 100 * counts[i].second / highest, html::count(counts[i].second));
  }
  table += "</table></div>";
  if (counts.size() > kMostLabels) table += fmt::format("<p class=\"lead\">and {} more labels, the smallest with {} rows</p>", counts.size() - kMostLabels, html::count(counts.back().second));
  return table;
}

// Line ends are made visible; supervised tokens are marked.
std::string mask_preview(const Json& example) {
  const Json& tokens = html::child(example, "tokens");
  if (!tokens.is_array() || tokens.empty()) return {};
  std::string text, run;
  bool marked = false;
  const auto close = [&] {
    if (!run.empty()) text += marked ? "<mark>" + run + "</mark>" : run;
    run.clear();
  };
  size_t shown = 0, supervised_tokens = 0;
  for (const Json& token : tokens) {
    if (shown++ == kMostTokens) break;
    const bool supervised = html::child(token, "supervised") == Json(true) || html::child(token, "supervised") == Json(1);
    supervised_tokens += supervised;
    if (supervised != marked) close();
    marked = supervised;
    const std::string escaped = html::escape(html::text(token, "text"));
    for (const char character : escaped) run += character == '\n' ? std::string("<span class=\"newline\">↵</span>\n") : std::string(1, character);
  }
  close();
  return fmt::format("<h3>What is learnt</h3><p class=\"lead\">One conversation as the model sees it. Marked: the {} of {} tokens that are training targets.</p>"
                     "<pre class=\"mask\">{}</pre>", html::count(static_cast<double>(supervised_tokens)), html::count(static_cast<double>(std::min(shown, tokens.size()))), text);
}

}  // namespace

std::string training(const ReportData& data) {
  if (data.metrics.empty()) return {};
  std::string plots = loss_plot(data.metrics);
  plots += single_plot(data.metrics, "learning_rate", "Learning rate", html::small_number);
  plots += single_plot(data.metrics, "gradient_norm", "Gradient norm", html::small_number);
  plots += single_plot(data.metrics, "tokens_per_s", "Speed, tokens a second", html::count);
  plots += single_plot(data.metrics, "cross_entropy", "Cross-entropy, nats a token", html::small_number);
  plots += single_plot(data.metrics, "divergence", "Divergence from the teacher, nats a token", html::small_number);
  plots += single_plot(data.metrics, "hidden_state_loss", "Hidden-state loss, relative squared error", html::small_number);
  const auto formula = html::text(html::child(data.plan, "objective"), "formula");
  return section("training", "Training", formula.empty() ? "" : "Loss: " + formula, plots.empty() ? "" : "<div class=\"plots\">\n" + plots + "</div>");
}

std::string rows(const ReportData& data) {
  const Json& plan = data.plan;
  std::string content, lines;
  const Json& splits = html::child(plan, "rows");
  for (const char* split : {"train", "validation", "test"}) {
    if (const auto count = html::number(splits, split)) lines += fmt::format("<dt>{} rows</dt><dd>{}</dd>", split, html::count(*count));
  }
  if (const auto tokens = html::number(plan, "tokens")) {
    lines += fmt::format("<dt>tokens of one epoch</dt><dd>{}</dd>", html::count(*tokens));
    if (const auto supervised = html::number(plan, "supervised_tokens"); supervised && *tokens > 0) {
      lines += fmt::format("<dt>of them supervised</dt><dd>{} ({})</dd>", html::count(*supervised), html::percent(*supervised / *tokens));
    }
  }
  if (!lines.empty()) content += "<dl>" + lines + "</dl>";
  const Json& notes = html::child(plan, "notes");
  if (notes.is_array()) {
    for (const Json& note : notes) {
      if (note.is_string()) content += fmt::format("<p class=\"note\">{}</p>", html::escape(note.get<std::string>()));
    }
  }
  const Json& findings = html::child(plan, "findings");
  if (findings.is_array()) {
    for (const Json& finding : findings) {
      content += fmt::format("<p class=\"note warning\"><b>{}</b>: {}</p>", html::escape(html::text(finding, "severity")), html::escape(html::text(finding, "message")));
    }
  }
  const Json& histogram = html::child(plan, "length_histogram");
  Points bars;
  double total = 0;
  if (histogram.is_array()) {
    for (const Json& bar : histogram) {
      if (!bar.is_array() || bar.size() != 2 || !bar[0].is_number() || !bar[1].is_number()) continue;
      bars.emplace_back(bar[0].get<double>(), bar[1].get<double>());
      total += bars.back().second;
    }
  }
  const std::string plot = bar_plot({"Length of the rows", fmt::format("Histogram of {} rows by their number of tokens.", html::count(total)), "tokens"}, bars);
  if (!plot.empty()) content += "<h3></h3><div class=\"plots\">" + plot + "</div>";
  content += label_bars(html::child(plan, "rows_per_label"));
  const Json& example = html::child(plan, "example");
  if (data.examples || html::text(example, "source") != "row") content += mask_preview(example);
  return section("rows", "Rows", "", content);
}

std::string model(const ReportData& data) {
  const Json& tensors = html::child(data.plan, "tensors");
  std::string content;
  if (const auto memory = html::number(data.plan, "memory_bytes")) {
    content += fmt::format("<h3>Planned memory</h3><dl><dt>together</dt><dd>{}</dd>", html::bytes(*memory));
    const Json& parts = html::child(data.plan, "memory");
    if (parts.is_object()) {
      for (const auto& [part, size] : parts.items()) {
        if (size.is_number()) content += fmt::format("<dt>{}</dt><dd>{}</dd>", html::escape(part), html::bytes(size.get<double>()));
      }
    }
    content += "</dl>";
  }
  if (tensors.is_array() && !tensors.empty()) {
    content += "<h3>Tensors</h3><div class=\"wide\"><table><tr><th>name</th><th>shape</th><th>form</th><th class=\"n\">bytes</th><th class=\"n\">adapter parameters</th></tr>\n";
    size_t shown = 0;
    for (const Json& tensor : tensors) {
      if (shown++ == kMostTensors) break;
      content += fmt::format("<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n", html::escape(html::text(tensor, "name")),
                             html::escape(html::child(tensor, "shape").is_array() ? html::child(tensor, "shape").dump() : ""),
                             html::escape(html::text(tensor, "form")), html::number(tensor, "bytes") ? html::bytes(*html::number(tensor, "bytes")) : "",
                             html::number(tensor, "adapter_parameters").value_or(0) > 0 ? html::count(*html::number(tensor, "adapter_parameters")) : "");
    }
    content += "</table></div>";
    if (tensors.size() > kMostTensors) content += fmt::format("<p class=\"lead\">and {} more</p>", tensors.size() - kMostTensors);
  }
  return section("model", "Model", "", content);
}

}  // namespace graft::report
