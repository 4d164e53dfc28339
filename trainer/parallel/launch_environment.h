// Which process of a run this is, as its launcher says in the environment: torchrun (and whatever sets its variables: Kubeflow, `graft launch`),
// Open MPI's mpirun, or Slurm's srun. No connection is made unless one of them says that there are several processes.
#pragma once
#include <functional>
#include <string>

namespace graft {

struct LaunchEnvironment {
  std::string launcher;        // "torchrun", "Open MPI", "Slurm"; empty: none, one process
  int rank = 0, size = 1;      // of all processes
  int local_rank = 0, local_size = 1;   // on this machine
  std::string address;         // where the processes meet: rank 0's host, or the one of torchrun's agent
  int port = 0;
  bool agent_store = false;    // torchrun's agent keeps the store there; else rank 0 does
  std::string prefix;          // of keys in an agent's store: "/worker/attempt_0"
  bool alone() const { return size == 1; }
};

// `variable` gives a variable's value or null (std::getenv). UserError: some of a launcher's variables are missing, or their values contradict
// each other.
LaunchEnvironment launch_environment(const std::function<const char*(const char*)>& variable);

// The first host of a Slurm list: "node[003-006,9],other" -> "node003".
std::string first_slurm_host(const std::string& list);

}  // namespace graft
