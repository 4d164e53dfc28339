#include "trainer/runs/training_loop.h"

#include <atomic>
#include <chrono>
#include <cmath>
#include <csignal>

#include <fmt/ranges.h>

#include "kernels/common/error.h"
#include "trainer/optimizers/schedule.h"
#include "trainer/report/log_file.h"
#include "trainer/report/metrics_log.h"
#include "trainer/report/progress.h"
#include "trainer/report/tensorboard_writer.h"

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
  int64_t tokens = 0, supervised = 0;
  std::vector<std::string> row_ids;
};

std::string places_of(const PreparedRun& run, const std::vector<int64_t>& sequences) {
  std::vector<std::string> places;
  for (const auto sequence : sequences) {
    const auto& row = run.dataset.train.row_of_sequence(sequence);
    places.push_back(fmt::format("{}:{}", row.source_file, row.line));
  }
  return fmt::format("{}", fmt::join(places, ", "));
}

StepResult run_step(PreparedRun& run, AdamW& optimizer, int64_t step, double learning_rate) {
  StepResult result;
  const auto sequences = run.sequences_of_step(step);
  const auto spans = run.dataset.train.spans(sequences);
  for (size_t i = 0; i < sequences.size(); ++i) {
    result.tokens += static_cast<int64_t>(spans[i].ids.size());
    result.supervised += count_targets(spans[i].supervised);
    result.row_ids.push_back(run.dataset.train.row_of_sequence(sequences[i]).row_id);
  }
  run.adapters->gradients.zero_();
  MicroBatchOptions options;
  options.gradient_scale = 1.0 / static_cast<double>(std::max<int64_t>(1, result.supervised));
  options.recompute = run.recompute;
  const uint64_t dropout_seed = run.recipe.adapter.dropout > 0 ? static_cast<uint64_t>(run.recipe.run.seed) * 1000003u + static_cast<uint64_t>(step) + 1 : 0;
  for (const auto& micro_batch : run.micro_batches(sequences)) {
    const auto batch = run.batch_of(run.dataset.train, micro_batch, dropout_seed);
    const auto part = run_micro_batch(*run.decoder, run.adapters.get(), batch, options);
    if (!std::isfinite(part.weighted_loss)) {
      fail("train", "expected a finite loss, got {} at step {} in the rows {} — look at these rows, lower optimizer.learning_rate, or set model.compute: float32; the last checkpoint is kept",
           part.weighted_loss, step + 1, places_of(run, micro_batch));
    }
    result.loss += part.weighted_loss * options.gradient_scale;
  }
  result.gradient_norm = optimizer.step(run.adapters->parameters, run.adapters->gradients, learning_rate);
  if (!std::isfinite(result.gradient_norm)) {
    fail("train", "expected a finite gradient norm, got {} at step {} in the rows {} — look at these rows, or lower optimizer.learning_rate; the last checkpoint is kept",
         result.gradient_norm, step + 1, places_of(run, sequences));
  }
  return result;
}

// Validation at a step: the new best is remembered; says whether patience is at its end.
bool evaluate_in_loop(const PreparedRun& run, RunState& state, nlohmann::ordered_json& line) {
  const auto evaluation = evaluate_loss(run, run.dataset.validation);
  line["validation_loss"] = evaluation.loss;
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

int pending_stop_signal() { return stop_signal.load(); }

EvaluationLoss evaluate_loss(const PreparedRun& run, const DatasetSplit& split) {
  std::vector<int64_t> sequences(static_cast<size_t>(split.num_sequences()));
  for (size_t i = 0; i < sequences.size(); ++i) sequences[i] = static_cast<int64_t>(i);
  MicroBatchOptions options;
  options.want_gradient = false;
  EvaluationLoss evaluation;
  double sum = 0;
  int64_t correct = 0;
  for (const auto& micro_batch : pack_rows(sequences, split.lengths, run.recipe.data.pack_tokens)) {
    auto batch = run.batch_of(split, micro_batch);
    batch.weights_N.clear();
    const auto part = run_micro_batch(*run.decoder, nullptr, batch, options);
    sum += part.weighted_loss;
    correct += part.num_correct;
    evaluation.supervised_tokens += part.num_supervised;
  }
  const auto count = static_cast<double>(std::max<int64_t>(1, evaluation.supervised_tokens));
  evaluation.loss = sum / count;
  evaluation.top1 = static_cast<double>(correct) / count;
  return evaluation;
}

LoopResult run_training_loop(PreparedRun& run, const RunFolder& folder, RunState& state, AdamW& optimizer) {
  const auto& options = run.recipe.run;
  MetricsLog metrics(folder.metrics());
  TensorboardWriter tensorboard(folder.tensorboard());
  metrics.cut_back_to(state.step);
  tensorboard.cut_back_to(state.step);
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
    save_checkpoint(folder.checkpoints(), state, tensors);
    prune_checkpoints(folder.checkpoints(), options.keep_last, validates && options.keep_best > 0 && state.best_loss ? state.best_step : -1);
    saved_step = state.step;
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
    const bool last = state.step == run.total_steps;
    const bool evaluates = validates && (last || state.step % options.evaluate_every == 0);
    const bool patience_ended = evaluates && evaluate_in_loop(run, state, line);
    metrics.append(line);
    std::vector<std::pair<std::string, double>> scalars = {{"train/loss", step.loss}, {"train/learning_rate", learning_rate},
                                                           {"train/gradient_norm", step.gradient_norm},
                                                           {"train/tokens_per_s", static_cast<double>(step.tokens) / seconds}};
    if (evaluates) {
      scalars.emplace_back("validation/loss", line["validation_loss"].get<double>());
      log().info(fmt::format("step {}/{}: loss {:.4f}, validation loss {:.4f}{}", state.step, run.total_steps, step.loss,
                             line["validation_loss"].get<double>(), state.best_step == state.step ? " (best so far)" : ""));
    }
    tensorboard.add_scalars(state.step, scalars);
    progress.update(state.step, step.loss, static_cast<double>(step.tokens) / seconds);
    const int signal = pending_stop_signal();
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
