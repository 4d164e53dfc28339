#include "trainer/runs/training_loop.h"

#include <atomic>
#include <chrono>
#include <cmath>
#include <csignal>

#include <ATen/ops/zeros.h>
#include <fmt/ranges.h>

#include "checkpoints/hash.h"
#include "kernels/common/error.h"
#include "trainer/optimizers/schedule.h"
#include "trainer/parallel/dealing.h"
#include "trainer/report/log_file.h"
#include "trainer/report/metrics_log.h"
#include "trainer/report/progress.h"
#include "trainer/report/tensorboard_writer.h"
#include "trainer/steps/routing_summary.h"

namespace graft {
namespace {

std::atomic<int> stop_signal{0};

void on_stop_signal(int signal) {
  if (stop_signal.exchange(signal) != 0) {   // the second time: now
    std::signal(signal, SIG_DFL);
    raise(signal);
  }
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct StepResult {
  double loss = 0, gradient_norm = 0;
  double cross_entropy = 0, divergence = 0;
  int64_t tokens = 0, supervised = 0;
  std::optional<RoutingStatistics> routing;   // of a mixture of experts
  std::vector<std::string> row_ids;
  int signal = 0;   // that some process got
};

std::string places_of(const PreparedRun& run, const std::vector<int64_t>& sequences) {
  std::vector<std::string> places;
  for (const auto sequence : sequences) {
    const auto& row = run.dataset.train.row_of_sequence(sequence);
    places.push_back(fmt::format("{}:{}", row.source_file, row.line));
  }
  return fmt::format("{}", fmt::join(places, ", "));
}

// Of a micro-batch: its loss, and the two parts of it.
constexpr int64_t kLossFigures = 3;

void write_losses(const MicroBatchResult& part, double* figures) {
  figures[0] = part.weighted_loss;
  figures[1] = part.weighted_cross_entropy;
  figures[2] = part.weighted_divergence;
}

// What the ranks do with micro-batches: each computes its own, and where the base is sharded all of them gather together.
class SharedWork {
 public:
  SharedWork(const PreparedRun& run, const DatasetSplit& split, const std::vector<std::vector<int64_t>>& micro_batches, const MicroBatchOptions& options)
      : run_(run), micro_batches_(micro_batches), options_(options) {
    std::vector<int64_t> tokens;
    for (const auto& micro_batch : micro_batches) {
      const auto work = run.work_of(split, micro_batch, options.loss_buffer_bytes);
      tokens.push_back(work.tokens);
      head_blocks_.push_back(work.head_blocks);
    }
    const auto dealt = deal(tokens, run.group->size());
    for (int rank = 0; rank < run.group->size(); ++rank) rounds_.push_back(rounds_of(dealt, rank, run.group->size()));
  }

  // compute(micro-batch, its figures) for those of this rank. Returns all micro-batches' figures on every rank, so that sums over them are made in one order,
  // whatever the number of processes. signals: behind them each rank's stop signal.
  template <typename Compute>
  std::vector<double> figures(int64_t num_figures, bool signals, const std::string& operation, const Compute& compute) const {
    auto& group = *run_.group;
    const auto count = static_cast<int64_t>(micro_batches_.size()) * num_figures;
    auto figures = at::zeros({count + (signals ? group.size() : 0)}, at::kDouble);
    auto* values = figures.data_ptr<double>();
    const auto& mine = rounds_[static_cast<size_t>(group.rank())];
    for (size_t round = 0; round < mine.size(); ++round) {
      if (run_.sharded) run_.sharded->begin(gathers(round));
      if (mine[round] >= 0) compute(micro_batches_[static_cast<size_t>(mine[round])], values + mine[round] * num_figures);
      if (run_.sharded) run_.sharded->end();
    }
    if (signals) values[count + group.rank()] = pending_stop_signal();
    group.sum(figures, operation);
    return {values, values + figures.numel()};
  }

 private:
  GatherRound gathers(size_t round) const {
    GatherRound gathers{options_.want_gradient, run_.adapters->lowest_layer(), 0};
    for (const auto& rank : rounds_) {
      if (rank[round] >= 0) gathers.head_blocks = std::max(gathers.head_blocks, head_blocks_[static_cast<size_t>(rank[round])]);
    }
    return gathers;
  }

  const PreparedRun& run_;
  const std::vector<std::vector<int64_t>>& micro_batches_;
  const MicroBatchOptions& options_;
  std::vector<int64_t> head_blocks_;
  std::vector<std::vector<int64_t>> rounds_;   // of each rank
};

StepResult run_step(PreparedRun& run, AdamW& optimizer, int64_t step, double learning_rate) {
  StepResult result;
  const auto sequences = run.sequences_of_step(step);
  const auto spans = run.dataset.train.spans(sequences);
  for (size_t i = 0; i < sequences.size(); ++i) {
    result.tokens += static_cast<int64_t>(spans[i].ids.size());
    result.supervised += count_targets(spans[i].supervised);
    result.row_ids.push_back(run.dataset.train.row_of_sequence(sequences[i]).row_id);
  }
  run.group->at_step(step + 1);
  run.adapters->gradients.zero_();
  MicroBatchOptions options;
  options.gradient_scale = 1.0 / static_cast<double>(std::max<int64_t>(1, result.supervised));
  options.recompute = run.recompute;
  options.weights = run.sharded.get();
  options.load_balancing = run.recipe.objective.load_balancing;
  options.want_routing = true;
  const uint64_t dropout_seed = run.recipe.adapter.dropout > 0 ? static_cast<uint64_t>(run.recipe.run.seed) * 1000003u + static_cast<uint64_t>(step) + 1 : 0;
  const auto micro_batches = run.micro_batches(sequences);
  RoutingSummary routing(run.decoder->spec());
  const int64_t num_figures = kLossFigures + routing.num_figures();
  options.objective = objective_of(run.recipe.objective);
  const SharedWork work(run, run.dataset.train, micro_batches, options);
  const auto figures = work.figures(num_figures, /*signals=*/true, "loss", [&](const auto& micro_batch, double* values) {
    const auto batch = run.batch_of(run.dataset.train, micro_batch, dropout_seed);
    const auto teacher = run.teacher_signals(run.dataset.train, micro_batch, batch);
    auto with_teacher = options;
    with_teacher.teacher = teacher ? &*teacher : nullptr;
    const auto part = run_micro_batch(*run.decoder, run.adapters.get(), batch, with_teacher);
    write_losses(part, values);
    routing.write(part, options.gradient_scale, values + kLossFigures);
  });
  for (size_t i = 0; i < micro_batches.size(); ++i) {
    const double* values = figures.data() + static_cast<int64_t>(i) * num_figures;
    if (!std::isfinite(values[0])) {
      fail("train", "expected a finite loss, got {} at step {} in the rows {} — look at these rows, lower optimizer.learning_rate, or set model.compute: float32; the last checkpoint is kept",
           values[0], step + 1, places_of(run, micro_batches[i]));
    }
    result.loss += values[0] * options.gradient_scale;
    result.cross_entropy += values[1] * options.gradient_scale;
    result.divergence += values[2] * options.gradient_scale;
    routing.add(values + kLossFigures);
  }
  result.routing = routing.statistics();
  for (size_t i = micro_batches.size() * static_cast<size_t>(num_figures); i < figures.size(); ++i) result.signal = std::max(result.signal, static_cast<int>(figures[i]));
  run.group->sum(run.adapters->gradients, "sum of the gradients");
  result.gradient_norm = optimizer.step(run.adapters->parameters, run.adapters->gradients, learning_rate);
  if (!std::isfinite(result.gradient_norm)) {
    fail("train", "expected a finite gradient norm, got {} at step {} in the rows {} — look at these rows, or lower optimizer.learning_rate; the last checkpoint is kept",
         result.gradient_norm, step + 1, places_of(run, sequences));
  }
  run.adapters_changed();
  return result;
}

// Validation at a step: the new best is remembered; says whether patience is at its end.
bool evaluate_in_loop(const PreparedRun& run, RunState& state, nlohmann::ordered_json& line) {
  const auto evaluation = evaluate_loss(run, run.dataset.validation, /*with_teacher=*/true);
  line["validation_loss"] = evaluation.loss;
  if (run.recipe.objective.distils()) {
    line["validation_cross_entropy"] = evaluation.cross_entropy;
    line["validation_divergence"] = evaluation.divergence;
  }
  line["validation_top1"] = evaluation.top1;
  if (!state.best_loss || evaluation.loss < *state.best_loss) {
    state.best_loss = evaluation.loss;
    state.best_step = state.step;
    state.evaluations_without_improvement = 0;
  } else {
    ++state.evaluations_without_improvement;
  }
  const auto& patience = run.recipe.run.early_stopping_patience;
  return patience && state.evaluations_without_improvement >= *patience;
}

}  // namespace

void install_stop_signals() {
  struct sigaction action = {};
  action.sa_handler = on_stop_signal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

void restore_stop_signals() {
  for (const int signal : {SIGINT, SIGTERM}) std::signal(signal, SIG_DFL);
  if (const int pending = pending_stop_signal(); pending != 0) raise(pending);
}

int pending_stop_signal() { return stop_signal.load(); }

EvaluationLoss evaluate_loss(const PreparedRun& run, const DatasetSplit& split, bool with_teacher) {
  std::vector<int64_t> sequences(static_cast<size_t>(split.num_sequences()));
  for (size_t i = 0; i < sequences.size(); ++i) sequences[i] = static_cast<int64_t>(i);
  MicroBatchOptions options;
  options.want_gradient = false;
  options.weights = run.sharded.get();
  options.objective = objective_of(run.recipe.objective);
  const auto micro_batches = pack_rows(sequences, split.lengths, run.recipe.data.pack_tokens);
  const SharedWork work(run, split, micro_batches, options);
  constexpr int64_t kFigures = kLossFigures + 2;
  const auto figures = work.figures(kFigures, /*signals=*/false, "evaluation", [&](const auto& micro_batch, double* values) {
    auto batch = run.batch_of(split, micro_batch);
    batch.weights_N.clear();
    const auto teacher = with_teacher ? run.teacher_signals(split, micro_batch, batch) : std::nullopt;
    auto of_batch = options;
    of_batch.teacher = teacher ? &*teacher : nullptr;
    const auto part = run_micro_batch(*run.decoder, nullptr, batch, of_batch);
    write_losses(part, values);
    values[kLossFigures] = static_cast<double>(part.num_correct);
    values[kLossFigures + 1] = static_cast<double>(part.num_supervised);
  });
  double sums[kFigures] = {};
  for (size_t i = 0; i < micro_batches.size() * kFigures; ++i) sums[i % kFigures] += figures[i];
  const double count = std::max(1.0, sums[kLossFigures + 1]);
  return {sums[0] / count, sums[1] / count, sums[2] / count, sums[kLossFigures] / count, static_cast<int64_t>(sums[kLossFigures + 1])};
}

// All processes make the same updates; a difference would be a fault of a machine, and is found before it is saved.
void check_equal_adapters(const PreparedRun& run) {
  if (run.group->alone()) return;
  const auto parameters = run.adapters->parameters.cpu();   // no copy where it is there
  const auto hashes = run.group->exchange(sha256(std::as_bytes(std::span(parameters.const_data_ptr<float>(), static_cast<size_t>(parameters.numel())))), "comparing adapters");
  for (size_t rank = 1; rank < hashes.size(); ++rank) {
    if (hashes[rank] != hashes[0]) {
      throw MachineError("train", fmt::format("expected the same adapter on all ranks, got another one on rank {} than on rank 0 — do the machines differ, or is one faulty? The last "
                                              "checkpoint is kept", rank));
    }
  }
}

LoopResult run_training_loop(PreparedRun& run, const RunFolder* folder, RunState& state, AdamW& optimizer) {
  const auto& options = run.recipe.run;
  std::optional<MetricsLog> metrics;
  std::optional<TensorboardWriter> tensorboard;
  if (folder) {
    metrics.emplace(folder->metrics()).cut_back_to(state.step);
    tensorboard.emplace(folder->tensorboard()).cut_back_to(state.step);
  }
  const StateTensors tensors{run.adapters->parameters, optimizer.first_moment, optimizer.second_moment};
  const bool validates = run.dataset.validation.num_sequences() > 0;
  Progress::Options progress_options;
  progress_options.unit = "tokens/s";
  progress_options.first = state.step;
  Progress progress(log(), "train", run.total_steps, progress_options);
  LoopResult result;
  int64_t saved_step = -1;
  const auto save = [&] {
    if (saved_step == state.step) return;
    state.optimizer_steps = optimizer.num_steps;
    check_equal_adapters(run);
    saved_step = state.step;
    if (!folder) return;
    save_checkpoint(folder->checkpoints(), state, tensors);
    prune_checkpoints(folder->checkpoints(), options.keep_last, validates && options.keep_best > 0 && state.best_loss ? state.best_step : -1);
  };
  const auto& patience = options.early_stopping_patience;
  if (patience && state.evaluations_without_improvement >= *patience) result.end = LoopEnd::kStoppedEarly;   // resumed after its end
  while (state.step < run.total_steps && result.end == LoopEnd::kFinished) {
    const auto start = std::chrono::steady_clock::now();
    const double learning_rate = learning_rate_at(run.recipe.schedule, run.learning_rate, state.step, run.total_steps);
    const auto step = run_step(run, optimizer, state.step, learning_rate);
    ++state.step;
    const double seconds = seconds_since(start);
    state.seconds += seconds;
    state.tokens += step.tokens;
    state.supervised_tokens += step.supervised;
    state.chain = next_chain_entry(state.chain, state.step, step.row_ids, step.loss, step.gradient_norm);
    nlohmann::ordered_json line = {{"step", state.step}, {"loss", step.loss}, {"learning_rate", learning_rate},
                                   {"gradient_norm", step.gradient_norm}, {"tokens", step.tokens}, {"supervised_tokens", step.supervised},
                                   {"tokens_per_s", static_cast<double>(step.tokens) / seconds}, {"seconds", seconds}};
    if (run.recipe.objective.distils()) {
      line["cross_entropy"] = step.cross_entropy;
      line["divergence"] = step.divergence;
    }
    if (step.routing) {
      line["load_balancing_loss"] = step.routing->load_balancing_loss;
      line["largest_expert_share"] = step.routing->largest_share;
      line["expert_entropy"] = step.routing->entropy;
    }
    const bool last = state.step == run.total_steps;
    const bool evaluates = validates && (last || state.step % options.evaluate_every == 0);
    const bool patience_ended = evaluates && evaluate_in_loop(run, state, line);
    if (metrics) metrics->append(line);
    std::vector<std::pair<std::string, double>> scalars = {{"train/loss", step.loss}, {"train/learning_rate", learning_rate},
                                                           {"train/gradient_norm", step.gradient_norm},
                                                           {"train/tokens_per_s", static_cast<double>(step.tokens) / seconds}};
    if (run.recipe.objective.distils()) {
      scalars.emplace_back("train/cross_entropy", step.cross_entropy);
      scalars.emplace_back("train/divergence", step.divergence);
    }
    if (step.routing) {
      scalars.emplace_back("train/load_balancing_loss", step.routing->load_balancing_loss);
      scalars.emplace_back("train/largest_expert_share", step.routing->largest_share);
      scalars.emplace_back("train/expert_entropy", step.routing->entropy);
    }
    if (evaluates) {
      scalars.emplace_back("validation/loss", line["validation_loss"].get<double>());
      log().info(fmt::format("step {}/{}: loss {:.4f}, validation loss {:.4f}{}", state.step, run.total_steps, step.loss,
                             line["validation_loss"].get<double>(), state.best_step == state.step ? " (best so far)" : ""));
    }
    if (tensorboard) tensorboard->add_scalars(state.step, scalars);
    progress.update(state.step, step.loss, static_cast<double>(step.tokens) / seconds);
    const int signal = run.group->alone() ? pending_stop_signal() : step.signal;
    if (last || patience_ended || signal != 0 || state.step % options.checkpoint_every == 0 || (evaluates && state.best_step == state.step)) save();
    if (signal != 0) {
      result = {LoopEnd::kInterrupted, signal};
      log().info(fmt::format("stopped at step {} of {}, saved; go on with --resume", state.step, run.total_steps));
      return result;
    }
    if (patience_ended) {
      log().info(fmt::format("early stop at step {}: no better validation loss for {} evaluations; best {:.4f} at step {}", state.step,
                             *options.early_stopping_patience, *state.best_loss, state.best_step));
      result.end = LoopEnd::kStoppedEarly;
      break;
    }
  }
  save();
  progress.finish();
  return result;
}

}  // namespace graft
