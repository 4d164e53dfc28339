#include "trainer/runs/teach_run.h"

#include <chrono>
#include <memory>
#include <set>
#include <vector>

#include "data/rows/packing.h"
#include "data/teacher_signals/server_teacher.h"
#include "kernels/common/error.h"
#include "trainer/distillation/signal_entries.h"
#include "trainer/models/families/licences.h"
#include "trainer/report/log_file.h"
#include "trainer/report/progress.h"
#include "trainer/runs/stop_signals.h"
#include "trainer/runs/teacher_answers.h"
#include "trainer/runs/teacher_inputs.h"

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
  // server: who is asked in place of run.teacher; null: nobody.
  Teaching(PreparedRun& run, TeacherStore& store, ServerTeacher* server) : run_(run), store_(store), server_(server), form_(teacher_identity(run).form) {}

  // The sequences of a split that the store lacks, once each.
  void add(const DatasetSplit& split) {
    auto missing = missing_signals(run_, &store_, split);
    std::erase_if(missing, [&](int64_t sequence) {
      const auto span = split.spans({sequence}).front();
      return !seen_.insert(taught_row_hash(span.ids, run_.taught_mask(span))).second;
    });
    for (auto& pack : pack_rows(missing, split.lengths, server_ ? 1 : run_.recipe.data.pack_tokens)) packs_.push_back({&split, std::move(pack)});
    num_rows_ += static_cast<int64_t>(missing.size());
  }
  int64_t num_rows() const { return num_rows_; }

  // Until all is written, or a signal came. What is finished is kept too when a server fails.
  Taught go(Progress& progress) {
    Taught taught;
    try {
      teach(progress, taught);
    } catch (const UserError&) {
      write();
      throw;
    }
    write();
    return taught;
  }

 private:
  void teach(Progress& progress, Taught& taught) {
    auto saved = std::chrono::steady_clock::now();
    for (const auto& [split, sequences] : packs_) {
      if (server_) ask_server(*split, sequences.front(), taught);
      else teach_pack(*split, sequences, taught);
      progress.update(taught.rows);
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - saved).count();
      if (static_cast<int64_t>(rows_.size()) >= kRowsOfShard || seconds > kSecondsOfShard) {
        write();
        saved = std::chrono::steady_clock::now();
      }
      if (pending_stop_signal() != 0) break;
    }
  }

  void ask_server(const DatasetSplit& split, int64_t sequence, Taught& taught) {
    const auto span = split.spans({sequence}).front();
    const auto mask = run_.taught_mask(span);
    TaughtRow row{taught_row_hash(span.ids, mask), count_targets(mask), {}};
    SignalEncoder encoder(form_);
    if (!server_->teach(encoder, span.ids, mask, row_place(split.row_of_sequence(sequence)))) return;   // stopped within it
    row.bits = encoder.take();
    ++taught.rows;
    taught.tokens += row.num_tokens;
    rows_.push_back(std::move(row));
  }

  void teach_pack(const DatasetSplit& split, const std::vector<int64_t>& sequences, Taught& taught) {
    const auto hidden_MC = run_.teacher->hidden(run_.teacher_batch(split.spans(sequences), split.rows_of(sequences), run_.batch_of(split, sequences))).cpu();
    EntryOptions options;
    options.form = form_;
    options.temperature = run_.recipe.objective.temperature;
    options.seed = static_cast<uint64_t>(run_.recipe.run.seed);
    int64_t first = 0;
    for (const auto& span : split.spans(sequences)) {
      const auto mask = run_.taught_mask(span);
      TaughtRow row{taught_row_hash(span.ids, mask), count_targets(mask), {}};
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
  ServerTeacher* server_;
  SignalForm form_;
  std::set<std::string> seen_;
  std::vector<Pack> packs_;
  std::vector<TaughtRow> rows_;   // not written yet
  int64_t num_rows_ = 0;
};

void check_licences(const PreparedRun& run) {
  const auto check = [&](const std::vector<std::string>& declared, const std::string& name) {
    const auto licence = check_licence(declared, run.recipe.accept_licence);
    if (!licence.problem.empty()) fail("plan", "{} ({})", licence.problem, name);
  };
  check(declared_licences(run.files.base), run.files.base.filename().string());
  check(teacher_licences(run), teacher_name(run));
}

std::unique_ptr<ServerTeacher> ask_server(const PreparedRun& run) {
  const auto& teacher = run.recipe.teacher;
  if (!teacher.server) return nullptr;
  const auto variable = teacher.key_env.value_or("");
  const ServerOptions options{server_address(*teacher.server), teacher.server_model.value_or(""), key_of_variable(variable), variable, teacher.answer_seconds, teacher_identity(run).form};
  return std::make_unique<ServerTeacher>(options, *run.context.tokenizer, row_place(run.dataset.train.rows.front()), [] { return pending_stop_signal() != 0; },
                                         [](const std::string& text) { log().info(text); });
}

int exit_code_of_stop() {
  const int signal = pending_stop_signal();
  if (signal == 0) return 0;
  log().info("stopped; what is finished is kept, and graft teach goes on from there");
  return 128 + signal;
}

TeachResult teach_answers(const PreparedRun& run) {
  TeacherStore store(store_folder(run.recipe), answers_identity(run), TeacherStore::Mode::kTeach, [](const std::string& text) { log().info(text); });
  const auto rows = rows_without_answers(run, store);
  const int64_t before = store.num_rows();
  const auto& options = run.recipe.teacher;
  log().info(fmt::format("{} answers {} prompts{} on {} threads, {}, at most {} tokens each", run.teacher_files.base.filename().string(), rows.size(),
                         before > 0 ? fmt::format(" ({} are answered)", before) : "", run.threads,
                         options.answers_temperature == 0 ? "greedily" : fmt::format("at temperature {:g}", options.answers_temperature), options.answers_max_new_tokens));
  const auto start = std::chrono::steady_clock::now();
  Progress progress(log(), "teach", static_cast<int64_t>(rows.size()), Progress::Options());
  const auto written = write_teacher_answers(run, store, rows, [&](int64_t done) { progress.update(done); });
  progress.finish();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  log().info(fmt::format("{} answers written, {} tokens; {} did not end within teacher.answers.max_new_tokens and are not learnt", written.rows, written.tokens, written.rows - written.finished));
  TeachResult result;
  result.summary = {{"rows", store.num_rows()}, {"new_rows", written.rows}, {"tokens", store.num_tokens()}, {"unfinished", written.rows - written.finished}, {"seconds", seconds},
                    {"complete", written.rows == static_cast<int64_t>(rows.size())}};
  result.exit_code = exit_code_of_stop();
  return result;
}

}  // namespace

TeachResult teach(const Recipe& recipe) {
  if (!recipe.objective.distils() || !recipe.teacher.stored()) {
    fail("teach", "expected a recipe with objective.kind distill and teacher.signal cached or answers, got {} and {} — training computes an online teacher itself", recipe.objective.kind,
         recipe.teacher.signal);
  }
  install_stop_signals();
  PrepareOptions prepare;
  prepare.teaches = true;
  prepare.log = [](const std::string& text) { log().info(text); };
  auto run = prepare_run(recipe, prepare);
  run.dataset.require_usable();
  check_licences(run);
  if (recipe.teacher.answers()) return teach_answers(run);
  auto identity = teacher_identity(run);
  const auto server = ask_server(run);
  if (const int code = exit_code_of_stop(); code != 0) return {code, {}};
  if (server) identity.served = server->served();
  TeacherStore store(store_folder(recipe), identity, TeacherStore::Mode::kTeach, [](const std::string& text) { log().info(text); });
  Teaching teaching(run, store, server.get());
  for (const auto* split : {&run.dataset.train, &run.dataset.validation}) teaching.add(*split);
  const int64_t before = store.num_rows();
  const auto where_from = recipe.teacher.server ? fmt::format("{} behind {}", server->served().value("id", ""), server_address(*recipe.teacher.server).host)
                                                : fmt::format("{} on {} threads", teacher_name(run), run.threads);
  log().info(fmt::format("teaching {} rows{} by {}: {}", teaching.num_rows(), before > 0 ? fmt::format(" ({} are there)", before) : "", where_from,
                         objective_formula(recipe.objective, recipe.teacher)));
  const auto where = run.device.device();
  if (!where.is_cpu() && run.teacher) run.teacher->set_device(where);
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
  const bool has_entropy = taught.tokens > 0 && !server;   // a server gives a part of the distribution
  if (has_entropy) result.summary["entropy"] = taught.entropy / tokens;
  log().info(fmt::format("{} rows, {} supervised tokens, {:.1f} bytes a token{}", store.num_rows(), store.num_tokens(), bytes_per_token,
                         has_entropy ? fmt::format("; the teacher's entropy is {:.2f} nats a token", taught.entropy / tokens) : ""));
  result.exit_code = exit_code_of_stop();
  return result;
}

}  // namespace graft
