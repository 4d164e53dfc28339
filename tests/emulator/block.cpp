#include "tests/emulator/block.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <random>
#include <utility>
#include <vector>

#include "tests/emulator/fiber.h"
#include "tests/emulator/memory.h"

namespace graft::emulator {
namespace {

constexpr int kMostThreads = 1024;

struct Place {
  const char* file = nullptr;
  int line = 0;
  bool operator==(const Place& other) const { return line == other.line && file && other.file && std::strcmp(file, other.file) == 0; }
  std::string text() const { return std::string(file) + ":" + std::to_string(line); }
};

struct Thread {
  std::unique_ptr<Fiber> fiber;
  const char* instruction = "";   // at which it waits
  Place place;
  bool left = false;
  std::string waits_for() const { return place.file ? instruction + (" " + place.text()) : instruction; }
};

struct Warp {
  int arrived = 0, left = 0;
  const char* instruction = nullptr;
  int first_lane = 0;
  void* arguments[kWarp] = {};
};

// The one block that runs. Fibers are kept from block to block.
struct Block {
  const char* kernel = nullptr;
  const std::function<void()>* body = nullptr;
  int64_t number = 0;
  int num_threads = 0, current = 0, left = 0;
  Fiber main;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<int> runnable;
  int at_barrier = 0, first_at_barrier = 0;
  Place barrier;
  std::unique_ptr<unsigned char[]> memory;
  unsigned char* shared = nullptr;
  size_t shared_bytes = 0;
  std::mt19937_64 random;
  std::exception_ptr error;

  int warp_of(int thread) const { return thread / kWarp; }

  std::string where(int thread) const {
    return "kernel " + std::string(kernel) + ", block " + std::to_string(number) + ", thread " + std::to_string(thread);
  }

  // The next that can run, in random order; the launching thread where none is left.
  Fiber& next() {
    if (runnable.empty()) {
      if (left < num_threads && !error) {
        std::string who;
        for (int t = 0; t < num_threads; ++t) {
          const bool like_the_one_before = t > 0 && !threads[t - 1].left && threads[t].waits_for() == threads[t - 1].waits_for();
          if (!threads[t].left && !like_the_one_before) who += "; thread " + std::to_string(t) + " waits at " + threads[t].waits_for();
        }
        error = std::make_exception_ptr(EmulatorError(where(current) + ": deadlock: no thread can run" + who));
      }
      return main;
    }
    const size_t chosen = random() % runnable.size();
    current = runnable[chosen];
    runnable[chosen] = runnable.back();
    runnable.pop_back();
    return *threads[current].fiber;
  }

  void wait(const char* instruction, const Place& place = {}) {
    auto& self = threads[current];
    self.instruction = instruction;
    self.place = place;
    Fiber& other = next();
    if (&other != self.fiber.get()) self.fiber->switch_to(other);
  }

  static void run_thread(void* argument) {
    auto& block = *static_cast<Block*>(argument);
    Fiber::arrived(*block.threads[block.current].fiber);
    try {
      (*block.body)();
    } catch (...) {
      block.error = std::current_exception();
    }
    block.leave();
  }

  [[noreturn]] void leave() {
    auto& self = threads[current];
    if (!error) {
      self.left = true;
      ++left;
      auto& warp = warps[warp_of(current)];
      ++warp.left;
      if (warp.arrived > 0) {
        error = std::make_exception_ptr(EmulatorError(where(current) + ": left the kernel while thread " + std::to_string(warp.first_lane) + " of its warp waits at " + warp.instruction));
      } else if (at_barrier > 0) {
        error = std::make_exception_ptr(EmulatorError(where(current) + ": left the kernel while thread " + std::to_string(first_at_barrier) + " waits at the barrier " + barrier.text()));
      }
    }
    if (error) self.fiber->leave_to(main);
    self.fiber->leave_to(next());
  }

  void run(int64_t block_number) {
    number = block_number;
    left = at_barrier = 0;
    warps.assign(num_threads / kWarp, {});
    runnable.clear();
    std::memset(shared, 0xff, shared_bytes);   // NaN in every floating type
    begin_block(shared, shared_bytes, num_threads);
    for (int t = 0; t < num_threads; ++t) {
      auto& thread = threads[t];
      thread.left = false;
      thread.instruction = "its start";
      thread.place = {};
      thread.fiber->start(run_thread, this);
      runnable.push_back(t);
    }
    main.switch_to(next());
    if (error) std::rethrow_exception(std::exchange(error, nullptr));
    end_block();
  }
};

Block* running = nullptr;

Block& block() {
  if (!running) throw EmulatorError("device code was called outside of a launch");
  return *running;
}

}  // namespace

Settings& settings() {
  static Settings settings = [] {
    Settings from_environment;
    if (const char* seed = std::getenv("GRAFT_EMULATOR_SEED")) from_environment.seed = std::strtoull(seed, nullptr, 10);
    return from_environment;
  }();
  return settings;
}

std::map<std::string, LaunchCounts>& launch_counts() {
  static std::map<std::string, LaunchCounts> counts;
  return counts;
}

namespace {

// "(name<arguments>)", as the macro has it, without its parentheses.
std::string name_of(const char* kernel) {
  const std::string text(kernel);
  return text.starts_with('(') && text.ends_with(')') ? text.substr(1, text.size() - 2) : text;
}

}  // namespace

void launch(const char* kernel_text, int64_t blocks, int threads, size_t shared_bytes, const std::function<void()>& body) {
  const auto kernel = name_of(kernel_text);
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  const auto refuse = [&](const std::string& what) { throw EmulatorError("kernel " + kernel + ": " + what); };
  if (threads < kWarp || threads % kWarp != 0 || threads > kMostThreads) refuse("expected a multiple of 32 threads a block, at most 1024, got " + std::to_string(threads));
  if (blocks < 1 || blocks > 0x7fffffff) refuse("expected 1 to 2^31 - 1 blocks, got " + std::to_string(blocks));
  if (shared_bytes > settings().most_shared_bytes) refuse("expected at most " + std::to_string(settings().most_shared_bytes) + " bytes of shared memory a block, got " + std::to_string(shared_bytes));
  ++launch_counts()[kernel].launches;
  static Block block;
  block.kernel = kernel.c_str();
  block.body = &body;
  block.num_threads = threads;
  block.random.seed(settings().seed);
  while (static_cast<int>(block.threads.size()) < threads) block.threads.push_back({Fiber::with_stack(), "", {}, false});
  block.memory = std::make_unique<unsigned char[]>(shared_bytes + 128);
  block.shared = reinterpret_cast<unsigned char*>((reinterpret_cast<uintptr_t>(block.memory.get()) + 127) / 128 * 128);
  block.shared_bytes = shared_bytes;
  begin_launch();
  struct Running {
    explicit Running(Block* block) { running = block; }
    ~Running() { running = nullptr; }
  } guard(&block);
  std::vector<int64_t> order(static_cast<size_t>(blocks));
  for (int64_t b = 0; b < blocks; ++b) order[static_cast<size_t>(b)] = b;
  std::shuffle(order.begin(), order.end(), block.random);
  for (const int64_t number : order) block.run(number);
}

int thread_in_block() { return block().current; }
int64_t block_in_grid() { return block().number; }
const char* running_kernel() { return block().kernel; }

unsigned char* shared_memory(size_t bytes) {
  if (bytes > block().shared_bytes) fail("takes " + std::to_string(bytes) + " bytes of shared memory, was launched with " + std::to_string(block().shared_bytes));
  return block().shared;
}

void block_barrier(const char* file, int line) {
  auto& b = block();
  const Place place{file, line};
  if (b.left > 0) fail("came to the barrier " + place.text() + " after another thread left the kernel");
  if (b.at_barrier == 0) {
    b.barrier = place;
    b.first_at_barrier = b.current;
  } else if (!(b.barrier == place)) {
    fail("divergent barrier: it is at " + place.text() + ", thread " + std::to_string(b.first_at_barrier) + " at " + b.barrier.text());
  }
  if (++b.at_barrier < b.num_threads) return b.wait("the barrier", place);
  b.at_barrier = 0;
  for (int t = 0; t < b.num_threads; ++t) {
    if (t != b.current) b.runnable.push_back(t);
  }
  for (size_t warp = 0; warp < b.warps.size(); ++warp) flush_bank_conflicts(static_cast<int>(warp));
  order_block();
}

void warp_instruction(const char* name, void* arguments, WarpWork work) {
  auto& b = block();
  const int warp_number = b.warp_of(b.current), lane = b.current % kWarp;
  auto& warp = b.warps[warp_number];
  if (warp.left > 0) fail(std::string("came to ") + name + " after another lane of its warp left the kernel");
  if (warp.arrived == 0) {
    warp.instruction = name;
    warp.first_lane = b.current;
  } else if (std::strcmp(warp.instruction, name) != 0) {
    fail(std::string("lanes of one warp part: it is at ") + name + ", thread " + std::to_string(warp.first_lane) + " at " + warp.instruction);
  }
  warp.arguments[lane] = arguments;
  if (++warp.arrived < kWarp) return b.wait(name);
  warp.arrived = 0;
  flush_bank_conflicts(warp_number);
  if (work) work(warp.arguments);
  for (int t = warp_number * kWarp; t < (warp_number + 1) * kWarp; ++t) {
    if (t != b.current) b.runnable.push_back(t);
  }
}

void warp_barrier() {
  warp_instruction("warp_barrier", nullptr, [](void* const*) { order_warp(thread_in_block() / kWarp); });
}

void fail(const std::string& what) { throw EmulatorError(block().where(block().current) + ": " + what); }

}  // namespace graft::emulator
