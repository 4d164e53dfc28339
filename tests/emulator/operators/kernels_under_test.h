// The operators of the program with their own kernels, launchers and gradients: on the emulator, or, in the program that is built with
// GRAFT_KERNELS_ON_GPU, on the first GPU.
#pragma once
#include <string>

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include "kernels/common/operator_path.h"
#include "kernels/device_launch/launcher_table.h"
#ifdef GRAFT_KERNELS_ON_GPU
#include "trainer/runs/cuda_module.h"
#else
#include "tests/emulator/block.h"
#endif

namespace graft::test {

// While it lives, tensors on device() go through kernels.
class KernelsUnderTest {
 public:
  KernelsUnderTest() : plain_(plain_paths_taken()) {
#ifdef GRAFT_KERNELS_ON_GPU
    const auto problem = load_cuda_module(GRAFT_CUDA_MODULE);
    if (!problem.empty()) throw std::runtime_error(problem);
    set_operator_path(OperatorPath::kFast);
#else
    device_launchers().fill_in();
    device_launchers().current_stream = [](int) -> void* { return nullptr; };
    emulator::launch_counts().clear();
    set_operator_path(OperatorPath::kEmulated);
#endif
  }
  ~KernelsUnderTest() { set_operator_path(OperatorPath::kFast); }

#ifdef GRAFT_KERNELS_ON_GPU
  static at::Device device() { return {at::kCUDA, 0}; }
  // Of float32 results: a GPU's matrix instructions cut sums off where the emulator rounds.
  static double float32(double tolerance) { return 3 * tolerance; }
  // How often a kernel whose name begins so ran since the beginning; -1: nobody counts.
  static int64_t launches(const std::string&) { return -1; }
#else
  static at::Device device() { return at::kCPU; }
  static double float32(double tolerance) { return tolerance; }
  static int64_t launches(const std::string& kernel) {
    int64_t launches = 0;
    for (const auto& [name, counts] : emulator::launch_counts()) launches += name.starts_with(kernel) ? counts.launches : 0;
    return launches;
  }
#endif

  // Operators that had no kernel for what they were given, since the beginning.
  int64_t plain_paths() const { return plain_paths_taken() - plain_; }

 private:
  int64_t plain_;
};

}  // namespace graft::test
