// One optimizer step over its rows, and the same forward over a split for a loss: micro-batches shared out over the run's processes.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "trainer/optimizers/adamw.h"
#include "trainer/runs/prepared_run.h"
#include "trainer/runs/run_state.h"
#include "trainer/steps/routing_summary.h"

namespace graft {

struct StepResult {
  double loss = 0, gradient_norm = 0;
  double cross_entropy = 0, divergence = 0;   // of the rows' own answers
  double hidden_state_loss = 0;               // mean over all taught tokens
  int64_t tokens = 0, supervised = 0;         // of all rows
  int64_t on_policy_rows = 0, on_policy_tokens = 0;   // that the student answered, and their taught tokens
  double on_policy_divergence = 0;            // mean over those
  std::optional<RoutingStatistics> routing;   // of a mixture of experts
  std::vector<std::string> row_ids;
  int signal = 0;                             // that some process got
};

// Step state.step: gradients of all micro-batches, summed over the processes, and one update. A NaN or infinite loss or gradient norm is a UserError that names the rows.
StepResult run_step(PreparedRun& run, RunState& state, AdamW& optimizer, double learning_rate);

struct EvaluationLoss {
  double loss = 0;          // mean over supervised tokens, of the objective
  double cross_entropy = 0, divergence = 0, hidden_state_loss = 0;   // its parts; without a teacher the loss is the first
  double top1 = 0;          // share of supervised tokens whose target has the highest logit
  int64_t supervised_tokens = 0;
};

// Forward only, in micro-batches of pack_tokens, shared out over the run's processes; the same figures on all of them. with_teacher: by the recipe's objective, where it
// has one; else cross-entropy.
EvaluationLoss evaluate_loss(const PreparedRun& run, const DatasetSplit& split, bool with_teacher = false);

}  // namespace graft
