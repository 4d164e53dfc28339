// The steps of a run, from its state to its end, a stop or an error. Every step: gradients over micro-batches, one update, metrics, hash chain;
// every N steps an atomic checkpoint and an evaluation.
#pragma once
#include "trainer/optimizers/adamw.h"
#include "trainer/runs/prepared_run.h"
#include "trainer/runs/run_folder.h"
#include "trainer/runs/run_state.h"

namespace graft {

struct EvaluationLoss {
  double loss = 0;          // mean over supervised tokens, of the objective
  double cross_entropy = 0, divergence = 0;   // its parts; without a teacher the loss is the first
  double top1 = 0;          // share of supervised tokens whose target has the highest logit
  int64_t supervised_tokens = 0;
};

// Forward only, in micro-batches of pack_tokens, shared out over the run's processes; the same figures on all of them. with_teacher: by the recipe's objective, where it
// has one; else cross-entropy.
EvaluationLoss evaluate_loss(const PreparedRun& run, const DatasetSplit& split, bool with_teacher = false);

// MachineError where the processes' adapters are not the same to the bit. All of them call it.
void check_equal_adapters(const PreparedRun& run);

enum class LoopEnd { kFinished, kStoppedEarly, kInterrupted };

struct LoopResult {
  LoopEnd end = LoopEnd::kFinished;
  int signal = 0;           // that interrupted it
};

// Runs from state.step to the end; folder is null on all processes but rank 0, which writes. A NaN or infinite loss or gradient norm stops it with a UserError that names the rows of the step.
LoopResult run_training_loop(PreparedRun& run, const RunFolder* folder, RunState& state, AdamW& optimizer);

// SIGINT and SIGTERM finish the step, save and leave; a second one ends the process at once.
void install_stop_signals();
// Behind the loop: a signal that came since, or comes, ends the process at once.
void restore_stop_signals();
int pending_stop_signal();

}  // namespace graft
