// run.device to a device: cpu, cuda:N, or auto: the visible GPU with most free memory that this program can use, else the CPU.
#pragma once
#include <optional>
#include <string>

#include <c10/core/Device.h>

#include "kernels/cuda_devices/cuda_devices.h"

namespace graft {

struct DeviceChoice {
  std::optional<CudaDevice> gpu;   // none: the CPU
  std::string note;                // which and why: a line of the plan; empty where the recipe says it all

  c10::Device device() const { return gpu ? c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(gpu->ordinal)) : c10::Device(c10::kCPU); }
  std::string name() const;        // for the manifest: "cpu", "cuda: NVIDIA H100 80GB HBM3, sm_90"
};

// This process's place among those on its machine that train together: each takes a GPU of its own.
struct LocalRank {
  int rank = 0, size = 1;
};

// wanted: as the recipe schema takes it. module_problem: why libgraft_cuda.so cannot be used, as part of a sentence; empty: it can. UserError
// for a cuda:N that cannot be used, or that several processes would share; for auto the same words are the note. auto of several processes: each
// takes the GPU of its rank among those that can be used, in their order (free memory changes while they start).
DeviceChoice choose_device(const std::string& wanted, const CudaListing& listing, const std::string& module_problem, LocalRank local = {});

// Asks this machine; where a GPU is chosen, its libraries are loaded and set to be deterministic (cuda_module.h).
DeviceChoice prepare_device(const std::string& wanted, LocalRank local = {});

}  // namespace graft
