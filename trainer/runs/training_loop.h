// The steps of a run, from its state to its end, a stop or an error. Every step: gradients over micro-batches, one update, metrics, hash chain;
// every N steps an atomic checkpoint and an evaluation.
#pragma once
#include "trainer/optimizers/adamw.h"
#include "trainer/runs/prepared_run.h"
#include "trainer/runs/run_folder.h"
#include "trainer/runs/run_state.h"
#include "trainer/runs/stop_signals.h"

namespace graft {

// MachineError where the processes' adapters are not the same to the bit. All of them call it.
void check_equal_adapters(const PreparedRun& run);

enum class LoopEnd { kFinished, kStoppedEarly, kInterrupted };

struct LoopResult {
  LoopEnd end = LoopEnd::kFinished;
  int signal = 0;           // that interrupted it
};

// Runs from state.step to the end; folder is null on all processes but rank 0, which writes. A NaN or infinite loss or gradient norm stops it with a UserError that names the rows of the step.
LoopResult run_training_loop(PreparedRun& run, const RunFolder* folder, RunState& state, AdamW& optimizer);

}  // namespace graft
