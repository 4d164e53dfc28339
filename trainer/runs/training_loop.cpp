#include "trainer/runs/training_loop.h"

#include <chrono>

#include "checkpoints/hash.h"
#include "kernels/common/error.h"
#include "trainer/optimizers/schedule.h"
#include "trainer/report/log_file.h"
#include "trainer/report/metrics_log.h"
#include "trainer/report/progress.h"
#include "trainer/report/tensorboard_writer.h"
#include "trainer/runs/training_step.h"

namespace graft {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Validation at a step: the new best is remembered; says whether patience is at its end.
bool evaluate_in_loop(const PreparedRun& run, RunState& state, nlohmann::ordered_json& line) {
  const auto evaluation = evaluate_loss(run, run.dataset.validation, /*with_teacher=*/true);
  line["validation_loss"] = evaluation.loss;
  if (run.recipe.follows_teacher()) {
    line["validation_cross_entropy"] = evaluation.cross_entropy;
    line["validation_divergence"] = evaluation.divergence;
  }
  if (run.hidden_matching) line["validation_hidden_state_loss"] = evaluation.hidden_state_loss;
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
  const bool validates = run.dataset.validation.statistics.targets > 0;   // rows of format prompts say nothing of the loss
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
    const auto step = run_step(run, state, optimizer, learning_rate);
    ++state.step;
    const double seconds = seconds_since(start);
    state.seconds += seconds;
    state.tokens += step.tokens;
    state.supervised_tokens += step.supervised;
    state.chain = next_chain_entry(state.chain, state.step, step.row_ids, step.loss, step.gradient_norm);
    nlohmann::ordered_json line = {{"step", state.step}, {"loss", step.loss}, {"learning_rate", learning_rate},
                                   {"gradient_norm", step.gradient_norm}, {"tokens", step.tokens}, {"supervised_tokens", step.supervised},
                                   {"tokens_per_s", static_cast<double>(step.tokens) / seconds}, {"seconds", seconds}};
    if (run.recipe.follows_teacher()) {
      line["cross_entropy"] = step.cross_entropy;
      line["divergence"] = step.divergence;
    }
    if (run.hidden_matching) line["hidden_state_loss"] = step.hidden_state_loss;
    if (run.recipe.objective.on_policy_share > 0) {
      line["on_policy_rows"] = step.on_policy_rows;
      line["on_policy_tokens"] = step.on_policy_tokens;
      line["on_policy_divergence"] = step.on_policy_divergence;
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
    if (run.recipe.follows_teacher()) {
      scalars.emplace_back("train/cross_entropy", step.cross_entropy);
      scalars.emplace_back("train/divergence", step.divergence);
    }
    if (run.hidden_matching) scalars.emplace_back("train/hidden_state_loss", step.hidden_state_loss);
    if (step.on_policy_rows > 0) scalars.emplace_back("train/on_policy_divergence", step.on_policy_divergence);
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
