// Runs a grid: its blocks one after another in random order, the threads of a block as fibers that take turns at barriers and warp instructions in
// random order. One thread of the machine; launches from several wait for each other.
//
// It is stricter than hardware. What it finds ends the launch as an EmulatorError that names kernel, block and thread:
//   a barrier or a warp instruction that not all threads reach, lanes of a warp at different instructions; reads and writes of shared or registered
//   memory out of bounds, misaligned, or unordered by a barrier (also by a copy that was not waited for). Shared memory starts as NaN.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>

namespace graft::emulator {

constexpr int kWarp = 32;

struct EmulatorError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// At first as the environment says: GRAFT_EMULATOR_SEED.
struct Settings {
  uint64_t seed = 1;                        // of the order of blocks and threads
  size_t most_shared_bytes = 227 << 10;     // sm_90; 163 KiB on sm_80, 99 KiB on sm_89 and sm_120
  bool count_bank_conflicts = false;
};
Settings& settings();

struct LaunchCounts {
  int64_t launches = 0;
  int64_t shared_requests = 0, shared_wavefronts = 0;   // of warps, with count_bank_conflicts: without conflicts they are equal
};
// By kernel, since the last clear().
std::map<std::string, LaunchCounts>& launch_counts();

// `threads`: a multiple of 32, at most 1,024.
void launch(const char* kernel, int64_t blocks, int threads, size_t shared_bytes, const std::function<void()>& body);

// Below: of the running thread.
int thread_in_block();
int64_t block_in_grid();
const char* running_kernel();
unsigned char* shared_memory(size_t bytes);   // at least as much as was launched with
void block_barrier(const char* file, int line);
void warp_barrier();

// Every lane of the warp calls with its own arguments; `work` runs once, with those of all 32, when the last has come.
using WarpWork = void (*)(void* const* arguments);
void warp_instruction(const char* name, void* arguments, WarpWork work);

[[noreturn]] void fail(const std::string& what);

}  // namespace graft::emulator
