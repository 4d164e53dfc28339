// Bytes of a GPU's memory that training is expected to need at its peak, and of what: lines for the plan.
#pragma once
#include "trainer/runs/prepared_run.h"

namespace graft {

struct DeviceMemoryEstimate {
  int64_t base = 0, adapters = 0, activations = 0, scratch = 0, program = 0;
  int64_t total() const { return base + adapters + activations + scratch + program; }
};

// Counts what autograd keeps of the plain ATen operators (kernels/*/: the references), not measured on a GPU yet: rounded up where in doubt.
DeviceMemoryEstimate estimate_device_memory(const PreparedRun& run, Recompute recompute);

// Free memory, or the GPU's own size where the driver does not say.
int64_t available_bytes(const CudaDevice& gpu);

}  // namespace graft
