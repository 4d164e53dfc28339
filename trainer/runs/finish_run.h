// The end of a run: the best adapter, the test score, exports, certificates, the report. Can be repeated by --resume.
#pragma once
#include "trainer/report/manifest.h"
#include "trainer/runs/train_run.h"
#include "trainer/runs/training_loop.h"

namespace graft {

TrainResult finish_run(PreparedRun& run, const RunFolder& folder, const RunState& state, AdamW& optimizer, Manifest manifest);

}  // namespace graft
