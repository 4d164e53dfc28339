// The machine that a run ran on, as far as its results depend on it. No host name, no user name.
#pragma once
#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

namespace graft {

struct MachineInfo {
  std::string cpu;               // "AMD EPYC 9575F 64-Core Processor"
  std::string instruction_set;   // the widest that matters to bf16 and float32 GEMM: "avx512_bf16", "amx_bf16", "avx2", ...
  int cores = 0;                 // that this process may use (affinity and cgroup quota)
  int64_t memory_bytes = 0;      // that this process may use (installed, or the cgroup's limit)
  std::string kernel;            // "Linux 6.1.0"
  std::string gpu;               // set by the trainer where a GPU is used; empty: none
};

MachineInfo machine_info();
nlohmann::ordered_json to_json(const MachineInfo& machine);

// SHA-256 of the running program: another build may round otherwise.
std::string program_build_id();

}  // namespace graft
