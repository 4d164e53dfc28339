#include "trainer/runs/test_scores.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>

#include "checkpoints/atomic_file.h"
#include "checkpoints/hash.h"
#include "data/rows/packing.h"
#include "kernels/common/error.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "trainer/evaluation/bootstrap.h"
#include "trainer/evaluation/labelled_report.h"
#include "trainer/models/packed_batch.h"
#include "trainer/report/log_file.h"
#include "trainer/report/progress.h"
#include "trainer/runs/training_step.h"

namespace graft {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

constexpr int64_t kReportExamples = 20;
constexpr size_t kBaseRows = 500;

bool is_labelled(const DatasetSplit& split) {
  return !split.rows.empty() && std::all_of(split.rows.begin(), split.rows.end(), [](const Row& row) { return row.label.has_value(); });
}

struct UnseenScore {
  int64_t rows = 0;
  double accuracy = 0;
};

// Greedy answers to the test rows whose normalised text is not a training row's.
UnseenScore score_unseen(const DuplicateFindings& duplicates, const LabelledEvaluation& evaluation) {
  std::set<int64_t> trained;
  for (const auto& match : duplicates.exact) {
    if (match.row.split == 2 && match.other.split == 0) trained.insert(match.row.row);   // splits: train, validation, test
  }
  UnseenScore score;
  for (size_t i = 0; i < evaluation.answers.size(); ++i) {
    if (trained.contains(static_cast<int64_t>(i))) continue;
    ++score.rows;
    score.accuracy += evaluation.answers[i].greedy == evaluation.answers[i].gold;
  }
  score.accuracy /= static_cast<double>(std::max<int64_t>(1, score.rows));
  return score;
}

// Each process answers every size-th row; all get all answers.
LabelledEvaluation evaluate_together(const PreparedRun& run, const Decoder& decoder, const TemplateContext& context, const std::vector<Row>& rows, const LabelledOptions& options) {
  auto& group = *run.group;
  if (group.alone()) return evaluate_labelled(decoder, context, rows, options);
  const auto size = static_cast<size_t>(group.size());
  std::vector<Row> mine;
  for (auto row = static_cast<size_t>(group.rank()); row < rows.size(); row += size) mine.push_back(rows[row]);
  auto evaluation = evaluate_labelled(decoder, context, mine, options);
  const auto texts = group.exchange(to_json(evaluation).dump(-1, ' ', false, ordered_json::error_handler_t::replace), "scoring the test rows");
  std::vector<LabelledAnswer> answers(rows.size());
  evaluation.tokens = 0;
  for (size_t rank = 0; rank < size; ++rank) {
    const auto part = labelled_evaluation_from_json(ordered_json::parse(texts[rank]));
    evaluation.tokens += part.tokens;
    for (size_t i = 0; i < part.answers.size(); ++i) answers.at(rank + i * size) = part.answers[i];
    evaluation.labels = part.labels;
  }
  evaluation.answers = std::move(answers);
  return evaluation;
}

// One character a row: which of them were answered rightly, without their texts.
std::string right_answers(const LabelledEvaluation& evaluation) {
  std::string right;
  for (const auto& answer : evaluation.answers) right += answer.greedy == answer.gold ? '1' : '0';
  return right;
}

// a's accuracy less b's on the same rows, drawn for both alike (paired bootstrap).
Interval paired_difference(const std::string& a, const std::string& b) {
  return bootstrap(static_cast<int64_t>(a.size()), [&](std::span<const int64_t> rows) {
    double sum = 0;
    for (const auto row : rows) sum += a[static_cast<size_t>(row)] - b[static_cast<size_t>(row)];
    return sum / static_cast<double>(rows.size());
  });
}

std::string rows_hash(const std::vector<Row>& rows) {
  Sha256 hash;
  for (const auto& row : rows) hash.update(row.row_id);
  return hash.finish();
}

void add_speed(ordered_json& json, const LabelledEvaluation& evaluation, const std::optional<double>& cost_per_hour) {
  if (evaluation.seconds <= 0) return;
  const double tokens_per_s = static_cast<double>(evaluation.tokens) / evaluation.seconds;
  json["tokens_per_s"] = tokens_per_s;   // of prompts that it answered, by graft itself
  if (cost_per_hour) json["cost_per_million_tokens"] = *cost_per_hour / 3600 / tokens_per_s * 1e6;
}

// How another run (report.compare) did on the same rows.
void add_compared_run(ordered_json& json, const fs::path& run, const std::string& right) {
  const auto name = run.filename().string();
  std::ifstream stream(run / "evaluation.json");
  const auto other = stream ? ordered_json::parse(stream, nullptr, /*allow_exceptions=*/false) : ordered_json();
  if (!other.is_object() || !other.contains("right_answers")) {
    log().warning(fmt::format("report.compare: {} has no scores of labelled test rows (evaluation.json), and is left out", name));
    return;
  }
  if (other.at("rows_sha256") != json.at("rows_sha256")) {
    log().warning(fmt::format("report.compare: {} was scored on other test rows, and is left out", name));
    return;
  }
  const auto theirs = other.at("right_answers").get<std::string>();
  const auto difference = paired_difference(right, theirs);
  const double accuracy = static_cast<double>(std::count(theirs.begin(), theirs.end(), '1')) / static_cast<double>(theirs.size());
  json["compared"] = {{"run", name}, {"accuracy", accuracy}, {"difference", difference.value}, {"interval", {difference.low, difference.high}}};
  log().info(fmt::format("test accuracy of {}: {:.1f} %; this run's is {:+.1f} points from it [{:+.1f}, {:+.1f}] (paired bootstrap)", name, 100 * accuracy, 100 * difference.value,
                         100 * difference.low, 100 * difference.high));
}

// The teacher's score, and how far the student is from it.
void add_teacher_score(ordered_json& json, const LabelledEvaluation& student, const LabelledEvaluation& teacher, const LabelledReport& report) {
  const auto difference = paired_difference(right_answers(student), right_answers(teacher));
  int64_t same = 0;
  for (size_t i = 0; i < student.answers.size(); ++i) same += student.answers[i].text == teacher.answers[i].text;
  json["teacher"] = report_json(report);
  json["student_minus_teacher"] = {{"accuracy", difference.value}, {"interval", {difference.low, difference.high}},
                                   {"same_answers", static_cast<double>(same) / static_cast<double>(std::max<size_t>(1, student.answers.size()))}};
  log().info(fmt::format("test accuracy of the teacher: {:.1f} %; the student's is {:+.1f} points from it [{:+.1f}, {:+.1f}]", 100 * report.main().accuracy.value, 100 * difference.value,
                         100 * difference.low, 100 * difference.high));
}

}  // namespace

// Base and trained model on the test rows, by free greedy decoding; the file that the report shows.
std::optional<ordered_json> score_test_rows(PreparedRun& run, const RunFolder* folder) {
  const auto& test = run.dataset.test;
  if (test.rows.empty()) return std::nullopt;
  if (!is_labelled(test)) {
    const auto loss = evaluate_loss(run, test);
    run.adapters->set_enabled(false);
    const auto base = evaluate_loss(run, test);
    run.adapters->set_enabled(true);
    ordered_json json = {{"before", {{"loss", base.loss}, {"perplexity", std::exp(base.loss)}, {"rows", test.rows.size()}}},
                         {"after", {{"loss", loss.loss}, {"perplexity", std::exp(loss.loss)}, {"rows", test.rows.size()}}}};
    if (folder) write_file_atomic(folder->path() / "evaluation.json", json.dump(1) + "\n");
    log().info(fmt::format("test: loss {:.4f} (base {:.4f})", loss.loss, base.loss));
    return json;
  }
  LabelledOptions options;
  options.labels = false;
  options.texts = label_texts(run.dataset.train.rows);
  options.texts.merge(label_texts(test.rows));   // a label that training never saw is missed, not an error after the training
  const auto evaluate = [&](const std::string& title, const Decoder& decoder, const std::vector<Row>& rows, const TemplateContext* own_context = nullptr) {
    Progress progress(log(), title, static_cast<int64_t>(rows.size()), {});
    options.progress = [&](int64_t done) { progress.update(done * run.group->size()); };
    auto evaluation = evaluate_together(run, decoder, own_context ? *own_context : run.context, rows, options);
    progress.finish();
    return evaluation;
  };
  const auto trained = evaluate("test, trained", *run.decoder, test.rows);
  // The base rambles where the trained model answers: a sample of the rows is enough to say where it stood.
  std::vector<Row> base_rows;
  const size_t num_base_rows = std::min(test.rows.size(), kBaseRows);
  for (size_t i = 0; i < num_base_rows; ++i) base_rows.push_back(test.rows[i * test.rows.size() / num_base_rows]);
  run.adapters->set_enabled(false);
  const auto base = evaluate("test, base", *run.decoder, base_rows);
  run.adapters->set_enabled(true);
  const bool same_rows = num_base_rows == test.rows.size();
  const auto trained_report = report_of(trained, options), base_report = report_of(base, options);
  const EvaluatedModel before{base, base_report}, after{trained, trained_report};
  auto json = evaluation_json(before, after, test.rows, run.recipe.report.examples ? kReportExamples : 0);
  add_speed(json["speed"]["after"], trained, run.recipe.report.cost_per_hour);
  const auto right = right_answers(trained);
  json["rows_sha256"] = rows_hash(test.rows);
  json["right_answers"] = right;
  const auto unseen = score_unseen(run.dataset.duplicates, trained);
  if (unseen.rows < static_cast<int64_t>(test.rows.size())) {
    json["without_training_texts"] = {{"rows", unseen.rows}, {"accuracy", unseen.accuracy}};
    log().info(fmt::format("test accuracy without the {} rows whose text stands in train: {:.1f} %", static_cast<int64_t>(test.rows.size()) - unseen.rows,
                           100 * unseen.accuracy));
  }
  if (run.recipe.objective.distils() && run.recipe.teacher.has_files()) {
    std::optional<LoadedModel> loaded;   // training from a store never had it
    if (!run.teacher && !run.span_teacher) loaded = load_teacher(run.recipe.teacher);
    const LoadedModel* own = run.span_teacher ? &run.span_teacher->loaded() : loaded ? &*loaded : nullptr;
    // Where it is not beside the student it reads the rows in its own template and tokenizer.
    const auto teacher = evaluate("test, teacher", run.teacher ? run.teacher->decoder() : *own->decoder, test.rows, own ? &own->context : nullptr);
    add_teacher_score(json, trained, teacher, report_of(teacher, options));
    add_speed(json["speed"]["teacher"], teacher, run.recipe.report.cost_per_hour);
  }
  if (run.recipe.report.compare) add_compared_run(json, *run.recipe.report.compare, right);
  if (folder) write_file_atomic(folder->path() / "evaluation.json", json.dump(1) + "\n");
  log().info(fmt::format("test accuracy by free greedy decoding: {:.1f} % [{:.1f}, {:.1f}], base {:.1f} %{}, on {} rows", 100 * trained_report.main().accuracy.value,
                         100 * trained_report.main().accuracy.low, 100 * trained_report.main().accuracy.high, 100 * base_report.main().accuracy.value,
                         same_rows ? "" : fmt::format(" (on {} of them)", num_base_rows), test.rows.size()));
  for (size_t i = 0; same_rows && i < test.rows.size() && i < 3; ++i) {   // on the screen only: the log file keeps no rows
    if (log().has_terminal()) {
      fmt::print(stderr, "  {}\n    expected {} | base: {} | trained: {}\n", test.rows[i].text.substr(0, 90), *test.rows[i].label,
                 base.answers[i].text.substr(0, 40), trained.answers[i].text);
    }
  }
  return json;
}

Forgetting measure_forgetting(const PreparedRun& run) {
  const auto& general = run.dataset.general;
  const TeacherModel base(*run.decoder, *run.adapters);
  std::vector<int64_t> sequences(static_cast<size_t>(general.num_sequences()));
  for (size_t i = 0; i < sequences.size(); ++i) sequences[i] = static_cast<int64_t>(i);
  MicroBatchOptions options;
  options.want_gradient = false;
  options.objective = {.teacher_share = 1, .divergence = Divergence::kForwardKl};
  CrossEntropyOptions of_base;
  of_base.want_gradient = false;
  Forgetting forgetting;
  double before = 0, after = 0;
  for (const auto& pack : pack_rows(sequences, general.lengths, run.recipe.data.pack_tokens)) {
    auto batch = run.batch_of(general, pack);
    batch.weights_N.clear();
    batch.teaches_all = false;
    const auto signals = base.signals(batch);
    options.teacher = &signals;
    const auto trained = run_micro_batch(*run.decoder, nullptr, batch, options);
    forgetting.tokens += trained.num_supervised;
    forgetting.divergence += trained.weighted_divergence;
    after += trained.weighted_cross_entropy;
    before += linear_cross_entropy(signals.hidden_MC, *signals.head, supervised_labels(batch), {}, of_base).weighted_loss;
  }
  const double count = std::max<double>(1, static_cast<double>(forgetting.tokens));
  forgetting.divergence /= count;
  forgetting.perplexity_before = std::exp(before / count);
  forgetting.perplexity_after = std::exp(after / count);
  return forgetting;
}

}  // namespace graft
