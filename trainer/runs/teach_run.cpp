#include "trainer/runs/teach_run.h"

#include <chrono>
#include <memory>
#include <set>
#include <vector>

#include "data/rows/packing.h"
#include "kernels/common/error.h"
#include "trainer/distillation/signal_entries.h"
#include "trainer/models/families/licences.h"
#include "trainer/report/log_file.h"
#include "trainer/report/progress.h"
#include "trainer/runs/teacher_inputs.h"
#include "trainer/runs/training_loop.h"

namespace graft {

namespace {

constexpr int64_t kRowsOfShard = 1024;   // a kill loses at most these
constexpr double kSecondsOfShard = 60;   // and no more than a minute's

// The first 8 bytes of a row's hash.
uint64_t row_key(const std::string& hash) { return std::stoull(hash.substr(0, 16), nullptr, 16); }

struct Taught {
  int64_t rows = 0, tokens = 0;
  double entropy = 0;
};

class Teaching {
 public:
  Teaching(PreparedRun& run, TeacherStore& store) : run_(run), store_(store), form_(teacher_identity(run).form) {}

  // The sequences of a split that the store lacks, once each.
  void add(const DatasetSplit& split) {
    auto missing = missing_signals(&store_, split);
    std::erase_if(missing, [&](int64_t sequence) {
      const auto span = split.spans({sequence}).front();
      return !seen_.insert(taught_row_hash(span.ids, span.supervised)).second;
    });
    for (auto& pack : pack_rows(missing, split.lengths, run_.recipe.data.pack_tokens)) packs_.push_back({&split, std::move(pack)});
    num_rows_ += static_cast<int64_t>(missing.size());
  }
  int64_t num_rows() const { return num_rows_; }

  // Until all is written, or a signal came.
  Taught go(Progress& progress) {
    Taught taught;
    auto saved = std::chrono::steady_clock::now();
    for (const auto& [split, sequences] : packs_) {
      teach_pack(*split, sequences, taught);
      progress.update(taught.rows);
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - saved).count();
      if (static_cast<int64_t>(rows_.size()) >= kRowsOfShard || seconds > kSecondsOfShard) {
        write();
        saved = std::chrono::steady_clock::now();
      }
      if (pending_stop_signal() != 0) break;
    }
    write();
    return taught;
  }

 private:
  void teach_pack(const DatasetSplit& split, const std::vector<int64_t>& sequences, Taught& taught) {
    const auto hidden_MC = run_.teacher->hidden(run_.batch_of(split, sequences)).cpu();
    EntryOptions options;
    options.form = form_;
    options.temperature = run_.recipe.objective.temperature;
    options.seed = static_cast<uint64_t>(run_.recipe.run.seed);
    int64_t first = 0;
    for (const auto& span : split.spans(sequences)) {
      TaughtRow row{taught_row_hash(span.ids, span.supervised), count_targets(span.supervised), {}};
      options.row_key = row_key(row.hash);
      SignalEncoder encoder(form_);
      taught.entropy += add_entries(encoder, hidden_MC.narrow(0, first, row.num_tokens), run_.teacher->head(), options);
      row.bits = encoder.take();
      first += row.num_tokens;
      ++taught.rows;
      taught.tokens += row.num_tokens;
      rows_.push_back(std::move(row));
    }
  }

  void write() {
    if (rows_.empty()) return;
    store_.add(rows_);
    rows_.clear();
  }

  struct Pack {
    const DatasetSplit* split;
    std::vector<int64_t> sequences;
  };
  PreparedRun& run_;
  TeacherStore& store_;
  SignalForm form_;
  std::set<std::string> seen_;
  std::vector<Pack> packs_;
  std::vector<TaughtRow> rows_;   // not written yet
  int64_t num_rows_ = 0;
};

void check_licences(const PreparedRun& run) {
  for (const auto& base : {run.files.base, run.teacher_files.base}) {
    const auto licence = check_licence(declared_licences(base), run.recipe.accept_licence);
    if (!licence.problem.empty()) fail("plan", "{} ({})", licence.problem, base.filename().string());
  }
}

}  // namespace

TeachResult teach(const Recipe& recipe) {
  if (!recipe.objective.distils() || !recipe.teacher.cached()) {
    fail("teach", "expected a recipe with objective.kind distill and teacher.signal cached, got {} and {} — training computes an online teacher itself", recipe.objective.kind, recipe.teacher.signal);
  }
  install_stop_signals();
  PrepareOptions prepare;
  prepare.teaches = true;
  prepare.log = [](const std::string& text) { log().info(text); };
  auto run = prepare_run(recipe, prepare);
  run.dataset.require_usable();
  check_licences(run);
  TeacherStore store(store_folder(recipe), teacher_identity(run), TeacherStore::Mode::kTeach, [](const std::string& text) { log().info(text); });
  Teaching teaching(run, store);
  for (const auto* split : {&run.dataset.train, &run.dataset.validation}) teaching.add(*split);
  const int64_t before = store.num_rows();
  log().info(fmt::format("teaching {} rows{} by {} on {} threads: {}", teaching.num_rows(), before > 0 ? fmt::format(" ({} are there)", before) : "", run.teacher_files.base.filename().string(),
                         run.threads, objective_formula(recipe.objective, recipe.teacher)));
  const auto where = run.device.device();
  if (!where.is_cpu()) run.teacher->set_device(where);
  const auto start = std::chrono::steady_clock::now();
  Progress progress(log(), "teach", teaching.num_rows(), Progress::Options());
  const auto taught = teaching.go(progress);
  progress.finish();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const auto tokens = static_cast<double>(std::max<int64_t>(1, taught.tokens));
  TeachResult result;
  const double bytes_per_token = static_cast<double>(store.num_bytes()) / static_cast<double>(std::max<int64_t>(1, store.num_tokens()));
  result.summary = {{"rows", store.num_rows()}, {"new_rows", taught.rows}, {"tokens", store.num_tokens()}, {"bytes", store.num_bytes()}, {"bytes_per_token", bytes_per_token},
                    {"seconds", seconds}, {"complete", taught.rows == teaching.num_rows()}};
  if (taught.tokens > 0) result.summary["entropy"] = taught.entropy / tokens;
  log().info(fmt::format("{} rows, {} supervised tokens, {:.1f} bytes a token{}", store.num_rows(), store.num_tokens(), bytes_per_token,
                         taught.tokens > 0 ? fmt::format("; the teacher's entropy is {:.2f} nats a token", taught.entropy / tokens) : ""));
  if (const int signal = pending_stop_signal(); signal != 0) {
    log().info("stopped; what is finished is kept, and graft teach goes on from there");
    result.exit_code = 128 + signal;
  }
  return result;
}

}  // namespace graft
