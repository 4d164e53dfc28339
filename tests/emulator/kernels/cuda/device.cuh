// kernels/cuda/device.cuh on the CPU: every CUDA thread of a block is a thread of the machine; blocks run one after another.
// Shared memory starts as NaN, so that a value read before it was written shows. It proves numbers, not speed.
#pragma once
#include <barrier>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#define GRAFT_DEVICE inline
#define GRAFT_KERNEL(max_threads) void
#define GRAFT_SHARED(Struct) (*reinterpret_cast<Struct*>(::graft::cuda::shared_memory()))
#define LAUNCH(kernel, blocks, threads, shared_bytes, stream, ...) \
  (static_cast<void>(stream), ::graft::cuda::emulator::launch((blocks), (threads), (shared_bytes), [&] { kernel(__VA_ARGS__); }))

namespace graft::cuda {

constexpr int kWarp = 32;

namespace emulator {

struct Warp {
  float values[kWarp];
  std::barrier<> barrier{kWarp};
};

struct Block {
  explicit Block(int num_threads, size_t shared_bytes) : barrier(num_threads), warps(num_threads / kWarp), shared(shared_bytes + 128, 0xff) {}
  std::barrier<> barrier;
  std::vector<Warp> warps;
  std::vector<unsigned char> shared;   // all bits set is a NaN: reading before writing shows
};

struct Place {
  Block* block = nullptr;
  int thread = 0;
  int64_t block_number = 0;
};
inline thread_local Place place;

template <typename Kernel>
void launch(int64_t blocks, int num_threads, size_t shared_bytes, const Kernel& kernel) {
  for (int64_t number = 0; number < blocks; ++number) {
    Block block(num_threads, shared_bytes);
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < num_threads; ++thread) {
      threads.emplace_back([&, thread] {
        place = {&block, thread, number};
        kernel();
      });
    }
  }
}

}  // namespace emulator

inline unsigned char* shared_memory() {
  const auto address = reinterpret_cast<uintptr_t>(emulator::place.block->shared.data());
  return reinterpret_cast<unsigned char*>((address + 127) / 128 * 128);
}
inline int thread_in_block() { return emulator::place.thread; }
inline int64_t block_in_grid() { return emulator::place.block_number; }
inline void block_barrier() { emulator::place.block->barrier.arrive_and_wait(); }
inline float shuffle_xor(float value, int mask) {
  auto& warp = emulator::place.block->warps[emulator::place.thread / kWarp];
  const int lane = emulator::place.thread % kWarp;
  warp.values[lane] = value;
  warp.barrier.arrive_and_wait();
  const float other = warp.values[lane ^ mask];
  warp.barrier.arrive_and_wait();
  return other;
}
inline uint32_t bits_of(float value) { return std::bit_cast<uint32_t>(value); }
inline float float_of(uint32_t bits) { return std::bit_cast<float>(bits); }
inline float inverse_square_root(float value) { return 1.0F / std::sqrt(value); }
inline const char* launch_error() { return nullptr; }

}  // namespace graft::cuda
