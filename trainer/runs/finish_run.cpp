#include "trainer/runs/finish_run.h"

#include <algorithm>
#include <cmath>
#include <set>

#include <ATen/ops/zeros_like.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <sys/resource.h>

#include "checkpoints/atomic_file.h"
#include "checkpoints/hash.h"
#include "kernels/common/error.h"
#include "trainer/adapters/adapter_files.h"
#include "trainer/evaluation/bootstrap.h"
#include "trainer/evaluation/labelled_report.h"
#include "trainer/exports/export.h"
#include "trainer/report/html_report.h"
#include "trainer/report/log_file.h"
#include "trainer/report/progress.h"
#include "trainer/runs/run_importance.h"
#include "trainer/verify/certificate.h"

namespace graft {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

constexpr int64_t kReportExamples = 20;
constexpr size_t kBaseRows = 500;

void load_best_adapter(PreparedRun& run, const RunFolder& folder, const RunState& state) {
  for (const auto& checkpoint : list_checkpoints(folder.checkpoints())) {
    if (checkpoint.step != state.best_step) continue;
    StateTensors tensors{run.adapters->parameters, at::zeros_like(run.adapters->parameters), at::zeros_like(run.adapters->parameters)};
    load_checkpoint(checkpoint.folder, tensors);
    log().info(fmt::format("the adapter is that of step {}, with the lowest validation loss ({:.4f})", state.best_step, *state.best_loss));
    return;
  }
  throw MachineError("run", fmt::format("the best checkpoint, step {}, is no longer there — resume from a copy of the run folder", state.best_step));
}

// The adapter that the run ends with: the best by validation loss, else the last.
void take_best_adapter(PreparedRun& run, const RunFolder* folder, const RunState& state) {
  if (!state.best_loss || run.recipe.run.keep_best == 0 || state.best_step == state.step) return;
  if (folder) load_best_adapter(run, *folder, state);
  run.group->broadcast(run.adapters->parameters, "sharing the best adapter");
  run.adapters_changed();
}

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
LabelledEvaluation evaluate_together(const PreparedRun& run, const Decoder& decoder, const std::vector<Row>& rows, const LabelledOptions& options) {
  auto& group = *run.group;
  if (group.alone()) return evaluate_labelled(decoder, run.context, rows, options);
  const auto size = static_cast<size_t>(group.size());
  std::vector<Row> mine;
  for (auto row = static_cast<size_t>(group.rank()); row < rows.size(); row += size) mine.push_back(rows[row]);
  auto evaluation = evaluate_labelled(decoder, run.context, mine, options);
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

// The teacher's score, and how far the student is from it: the same rows drawn for both (paired bootstrap).
void add_teacher_score(ordered_json& json, const LabelledEvaluation& student, const LabelledEvaluation& teacher, const LabelledReport& report) {
  const auto is_right = [](const LabelledAnswer& answer) { return answer.greedy == answer.gold ? 1.0 : 0.0; };
  const auto difference = bootstrap(static_cast<int64_t>(student.answers.size()), [&](std::span<const int64_t> rows) {
    double sum = 0;
    for (const auto row : rows) sum += is_right(student.answers[static_cast<size_t>(row)]) - is_right(teacher.answers[static_cast<size_t>(row)]);
    return sum / static_cast<double>(rows.size());
  });
  json["teacher"] = report_json(report);
  json["student_minus_teacher"] = {{"accuracy", difference.value}, {"interval", {difference.low, difference.high}}};
  log().info(fmt::format("test accuracy of the teacher: {:.1f} %; the student's is {:+.1f} points from it [{:+.1f}, {:+.1f}]", 100 * report.main().accuracy.value, 100 * difference.value,
                         100 * difference.low, 100 * difference.high));
}

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
  const auto evaluate = [&](const std::string& title, const Decoder& decoder, const std::vector<Row>& rows) {
    Progress progress(log(), title, static_cast<int64_t>(rows.size()), {});
    options.progress = [&](int64_t done) { progress.update(done * run.group->size()); };
    auto evaluation = evaluate_together(run, decoder, rows, options);
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
  const auto unseen = score_unseen(run.dataset.duplicates, trained);
  if (unseen.rows < static_cast<int64_t>(test.rows.size())) {
    json["without_training_texts"] = {{"rows", unseen.rows}, {"accuracy", unseen.accuracy}};
    log().info(fmt::format("test accuracy without the {} rows whose text stands in train: {:.1f} %", static_cast<int64_t>(test.rows.size()) - unseen.rows,
                           100 * unseen.accuracy));
  }
  if (run.recipe.objective.distils() && !run.recipe.teacher.is_self()) {
    std::optional<LoadedModel> loaded;   // training from a store never had it
    if (!run.teacher) loaded = load_teacher(run.recipe.teacher);
    const auto teacher = evaluate("test, teacher", run.teacher ? run.teacher->decoder() : *loaded->decoder, test.rows);
    add_teacher_score(json, trained, teacher, report_of(teacher, options));
  }
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

std::string file_name_of(const std::string& format, const std::string& base) {
  auto stem = fs::path(base).filename().string();
  if (stem.ends_with(".gguf")) stem.resize(stem.size() - 5);
  if (format == "peft" || format == "gguf-lora") return format == "peft" ? "peft" : stem + ".lora.gguf";
  if (format.starts_with("gguf:")) return stem + ".tuned." + format.substr(5) + ".gguf";
  auto folder = format;
  std::replace(folder.begin(), folder.end(), ':', '-');
  return folder;
}

std::string certificate_name(std::string format) {
  std::replace(format.begin(), format.end(), ':', '-');
  return format + ".json";
}

int64_t peak_memory_bytes() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

// Allocated by tensors at most, of the GPU's memory.
int64_t peak_device_memory_bytes(c10::Device device) {
  const auto stats = c10::getDeviceAllocator(device.type())->getDeviceStats(device.index());
  return stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)].peak;
}

}  // namespace

TrainResult finish_run(PreparedRun& run, const RunFolder* writes, const RunState& state, Manifest manifest) {
  const int64_t training_peak = peak_memory_bytes();
  if (const auto device = run.device.device(); !device.is_cpu()) manifest.extra["peak_device_memory_bytes"] = peak_device_memory_bytes(device);
  take_best_adapter(run, writes, state);
  if (!writes) {
    score_test_rows(run, nullptr);
    run.group->leave();
    return {};
  }
  const auto& folder = *writes;
  fs::remove_all(folder.adapter());   // of an earlier end of this run
  save_adapter(*run.adapters, run.recipe.adapter, run.files.base.filename().string(), folder.adapter());
  const auto adapter_sha256 = sha256_file(folder.adapter() / "adapter_model.safetensors");
  log().info(fmt::format("adapter: {} (SHA-256 {}...)", (folder.path() / "adapter").string(), adapter_sha256.substr(0, 16)));

  TrainResult result;
  auto& summary = result.summary;
  summary = {{"run", folder.path().filename().string()}, {"steps", state.step}, {"adapter_sha256", adapter_sha256}, {"chain", state.chain}};
  if (state.best_loss) summary["validation_loss"] = *state.best_loss;
  const auto evaluation = score_test_rows(run, writes);
  run.group->leave();
  if (evaluation) {
    for (const auto* side : {"before", "after", "teacher"}) {
      if (evaluation->contains(side)) summary[side] = (*evaluation)[side];
    }
  }

  std::optional<TrainedReference> reference;
  std::shared_ptr<const ImportanceMatrix> of_training_rows;
  std::unique_ptr<InputProducts> products;
  ordered_json exports = ordered_json::array();
  fs::remove_all(folder.certificates());
  make_private_directory(folder.certificates());
  make_private_directory(folder.exports());
  for (const auto& wanted : run.recipe.exports) {
    ExportRequest request;
    request.base = run.files.base;
    request.decoder = run.decoder.get();
    request.adapters = run.adapters.get();
    request.options = run.recipe.adapter;
    request.format = wanted.format;
    request.out = folder.exports() / file_name_of(wanted.format, run.files.base.string());
    request.tokenizer = run.context.tokenizer;
    request.chat_template = run.context.chat_template;
    request.facts = export_facts(manifest);
    request.importance = planned_importance(wanted);
    if (wanted.importance == "training_rows") {
      if (!of_training_rows) of_training_rows = importance_of_training_rows(run, folder.exports() / "importance.gguf");
      request.importance = of_training_rows;
    }
    if (wanted.rounding == "error_feedback") {
      if (!products) products = products_of_training_rows(run);
      request.products = products.get();
    }
    request.replace = true;
    const auto exported = export_model(request);
    log().info(fmt::format("export {}: {} ({:.1f} MiB)", wanted.format, exported.path.filename().string(), static_cast<double>(exported.bytes) / 1048576.0));
    for (const auto& note : exported.notes) log().info("  " + note);
    if (!exported.warning.empty()) log().warning(exported.warning);
    ordered_json entry = {{"format", wanted.format}, {"file", exported.path.filename().string()}, {"bytes", exported.bytes}, {"serve", exported.serve}};
    if (wanted.verify) {
      if (!reference) reference.emplace(run);
      CertificateRequest certificate_request;
      certificate_request.artefact = {exported.path, wanted.format, run.files.base};
      certificate_request.max_mean_kl = wanted.max_mean_kl;
      certificate_request.min_share_of_gain = wanted.min_share_of_gain;
      if (!exported.serve.empty()) certificate_request.serve_command = without_absolute_paths(exported.serve.front());
      certificate_request.warning = exported.warning;
      const auto certificate = make_certificate(*reference, certificate_request);
      write_file_atomic(folder.certificates() / certificate_name(wanted.format), certificate.dump(1) + "\n");
      log().info(certificate_summary(certificate));
      if (!certificate["passed"].get<bool>()) result.exit_code = 1;
      entry["passed"] = certificate["passed"];
      entry["mean_kl"] = certificate["mean_kl"];
      entry["share_of_gain_kept"] = certificate["share_of_gain_kept"];
    }
    exports.push_back(entry);
  }
  summary["exports"] = exports;
  manifest.extra["steps"] = state.step;
  manifest.extra["seconds"] = state.seconds;
  manifest.extra["peak_memory_bytes"] = training_peak;
  manifest.extra["chain"] = state.chain;
  manifest.extra["adapter_sha256"] = adapter_sha256;
  write_manifest(folder.manifest(), manifest);
  write_report(folder.path());
  log().info(fmt::format("report: {}", (folder.path() / "report.html").string()));
  for (const auto& entry : exports) {
    for (const auto& command : entry["serve"]) log().info(fmt::format("serve {}: {}", entry["format"].get<std::string>(), command.get<std::string>()));
  }
  return result;
}

}  // namespace graft
