// The processes of one run: sums, gathers and messages between them, on LibTorch's c10d (a TCPStore to meet at; Gloo between CPUs, NCCL between
// GPUs). Every process calls the same operations in the same order. An operation returns on all ranks or ends them all: when a rank fails, is
// killed or falls silent, each other one prints which rank, at which step and in which operation, and ends (heartbeat.h).
#pragma once
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/parallel/launch_environment.h"

namespace graft {

// A gather under way; wait() before reading its result or overwriting its input.
class PendingGather {
 public:
  virtual ~PendingGather() = default;
  virtual void wait() = 0;
};

class ProcessGroup {
 public:
  ProcessGroup();   // this process alone: every operation returns at once
  // Meets the others at launch.address:port; waits for them up to five minutes. UserError: the port is taken or the address is not this
  // machine's. MachineError: a rank did not come.
  explicit ProcessGroup(const LaunchEnvironment& launch);
  ~ProcessGroup();
  ProcessGroup(const ProcessGroup&) = delete;

  int rank() const { return launch_.rank; }
  int size() const { return launch_.size; }
  bool alone() const { return launch_.size == 1; }
  bool leads() const { return launch_.rank == 0; }   // rank 0 alone writes files and talks to people
  const LaunchEnvironment& launch() const { return launch_; }

  // Collectives take tensors of this device from here on: "cpu" (the start) or "cuda:N". Every rank calls it.
  void use_device(const at::Device& device);
  // What an error names beside the operation.
  void at_step(int64_t step);

  // Elementwise sum over all ranks, the same bits on each. float64 or float32, contiguous.
  void sum(at::Tensor& tensor, const std::string& operation);
  // Rank 0's values on all ranks.
  void broadcast(at::Tensor& tensor, const std::string& operation);
  // all[rank * n .. (rank + 1) * n) = part of that rank, for parts of n bytes (uint8).
  std::unique_ptr<PendingGather> gather(at::Tensor& all, const at::Tensor& part, const std::string& operation);
  // Every rank's text, by rank.
  std::vector<std::string> exchange(const std::string& value, const std::string& operation);
  void barrier(const std::string& operation) { exchange("", operation); }

  // The end of what the processes do together: waits for all. Afterwards each is alone.
  void leave();
  // This process cannot go on: prints the error, tells the others, ends the process with `exit_code`.
  [[noreturn]] void end(const std::exception& error, int exit_code);

 private:
  struct Connection;
  LaunchEnvironment launch_;
  std::unique_ptr<Connection> connection_;
};

}  // namespace graft
