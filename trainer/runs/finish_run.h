// The end of a run: the best adapter, the test score (shared out over the processes), then on rank 0 alone exports, certificates, the report. Can be
// repeated by --resume.
#pragma once
#include "trainer/report/manifest.h"
#include "trainer/runs/train_run.h"
#include "trainer/runs/training_loop.h"

namespace graft {

// folder: null on all processes but rank 0.
TrainResult finish_run(PreparedRun& run, const RunFolder* folder, const RunState& state, Manifest manifest);

}  // namespace graft
