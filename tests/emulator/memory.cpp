#include "tests/emulator/memory.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/emulator/block.h"

namespace graft::emulator {
namespace {

constexpr size_t kGranule = 2;   // the smallest element that two threads may write side by side
constexpr int32_t kNobody = -1, kWarpTogether = 1 << 20, kSeveralWarps = 1 << 21;   // kWarpTogether + number of the warp

// Who touched two bytes last. Intervals between the block's barriers are numbered without end, so that what an earlier block did is always earlier.
struct Cell {
  uint64_t write_interval = 0, read_interval = 0;
  uint64_t write_block = 0, read_block = 0;   // counted over all launches
  int32_t writer = kNobody, reader = kNobody;
  uint32_t write_warp_step = 0, read_warp_step = 0;
  bool atomic = false;                        // the write
  bool pending = false;                       // a copy that was not waited for
};

struct Region {
  const unsigned char* begin = nullptr;
  size_t bytes = 0;
  std::vector<Cell> cells;
  bool holds(const unsigned char* address, size_t count) const { return address >= begin && count <= bytes && static_cast<size_t>(address - begin) <= bytes - count; }
};

struct Copy {
  unsigned char* to;
  const unsigned char* from;
  size_t bytes;
};

struct SharedAccess {
  size_t offset, bytes;
};

uint64_t interval = 0, block_count = 0, first_block = 0;
Region shared;
std::map<const unsigned char*, Region> registered;
std::vector<uint32_t> warp_steps;
std::vector<std::deque<std::vector<Copy>>> groups;           // of each thread, oldest first
std::vector<std::vector<Copy>> open_group;
std::vector<std::vector<SharedAccess>> accesses;   // of each thread since its warp's last instruction

const char* name(Access access) { return access == Access::kRead ? "read" : access == Access::kWrite ? "write" : "atomic"; }

[[noreturn]] void race(const char* what, Access access, const unsigned char* base, const unsigned char* address, int other) {
  fail(std::string("race: ") + name(access) + " of " + what + " memory at byte " + std::to_string(address - base) + ", which " +
       (other == kSeveralWarps ? "several warps" : other >= kWarpTogether ? "threads of warp " + std::to_string(other - kWarpTogether) : "thread " + std::to_string(other)) +
       " touched, with no barrier between");
}

void check_cell(Cell& cell, Access access, bool is_global, const unsigned char* base, const unsigned char* address) {
  const int thread = thread_in_block(), warp = thread / kWarp;
  const char* what = is_global ? "global" : "shared";
  const bool atomic = access == Access::kAtomic, both_atomic = atomic && cell.atomic;
  const uint32_t step = warp_steps[static_cast<size_t>(warp)];
  if (cell.pending) fail(std::string(name(access)) + " of shared memory at byte " + std::to_string(address - base) + ", into which a copy is under way that thread " + std::to_string(cell.writer) + " has not waited for");
  if (is_global) {
    const auto other_block = [&](uint64_t block) { return block >= first_block && block != block_count; };
    if (other_block(cell.write_block) && !both_atomic) fail(std::string("race: ") + name(access) + " of global memory at byte " + std::to_string(address - base) + " of its buffer, which another block wrote");
    if (access != Access::kRead && !both_atomic && other_block(cell.read_block)) fail(std::string("race: ") + name(access) + " of global memory at byte " + std::to_string(address - base) + " of its buffer, which another block read");
  }
  // Unordered: the same interval, and not the same thread, nor the same warp with a warp_barrier between.
  if (cell.write_interval == interval && cell.writer != thread && !both_atomic && !(cell.writer / kWarp == warp && cell.write_warp_step < step)) race(what, access, base, address, cell.writer);
  if (access != Access::kRead && cell.read_interval == interval && cell.reader != thread && !both_atomic) {
    const int reader_warp = cell.reader >= kSeveralWarps ? -1 : cell.reader >= kWarpTogether ? cell.reader - kWarpTogether : cell.reader / kWarp;
    if (reader_warp != warp || cell.read_warp_step >= step) race(what, access, base, address, cell.reader);
  }
  if (access == Access::kRead) {
    if (cell.read_interval != interval) {
      cell.reader = thread;
    } else if (cell.reader != thread) {
      const int reader_warp = cell.reader >= kSeveralWarps ? -1 : cell.reader >= kWarpTogether ? cell.reader - kWarpTogether : cell.reader / kWarp;
      cell.reader = reader_warp == warp ? kWarpTogether + warp : kSeveralWarps;
    }
    cell.read_interval = interval;
    cell.read_warp_step = step;
    cell.read_block = block_count;
    return;
  }
  cell.write_interval = interval;
  cell.writer = thread;
  cell.write_warp_step = step;
  cell.write_block = block_count;
  cell.atomic = atomic;
}

void check_cells(Region& region, const unsigned char* address, size_t bytes, Access access, bool is_global) {
  const size_t first = static_cast<size_t>(address - region.begin) / kGranule, last = (static_cast<size_t>(address - region.begin) + bytes - 1) / kGranule;
  for (size_t cell = first; cell <= last; ++cell) check_cell(region.cells[cell], access, is_global, region.begin, region.begin + cell * kGranule);
}

void check_alignment(const void* address, size_t alignment, const char* what) {
  if (reinterpret_cast<uintptr_t>(address) % alignment != 0) fail(std::string("misaligned: ") + what + " memory is touched " + std::to_string(alignment) + " bytes at a time at an address that is no multiple of it");
}

void finish(const Copy& copy) {
  const auto thread = thread_in_block();
  const size_t first = static_cast<size_t>(copy.to - shared.begin) / kGranule;
  for (size_t cell = first; cell < first + copy.bytes / kGranule; ++cell) shared.cells[cell].pending = false;
  if (copy.from) {
    std::memcpy(copy.to, copy.from, copy.bytes);
  } else {
    std::memset(copy.to, 0, copy.bytes);
  }
  for (size_t cell = first; cell < first + copy.bytes / kGranule; ++cell) {   // it counts as written now
    auto& written = shared.cells[cell];
    written.write_interval = interval;
    written.writer = thread;
    written.write_warp_step = warp_steps[static_cast<size_t>(thread / kWarp)];
  }
}

}  // namespace

void register_memory(const void* begin, size_t bytes) {
  const auto* address = static_cast<const unsigned char*>(begin);
  registered[address] = {address, bytes, std::vector<Cell>((bytes + kGranule - 1) / kGranule)};
}

void forget_memory(const void* begin) { registered.erase(static_cast<const unsigned char*>(begin)); }

void check_global(const void* address, size_t bytes, size_t alignment, Access access) {
  check_alignment(address, alignment, "global");
  if (registered.empty()) return;
  const auto* at = static_cast<const unsigned char*>(address);
  auto region = registered.upper_bound(at);
  if (region != registered.begin()) --region;
  if (region == registered.end() || !region->second.holds(at, bytes)) {
    std::string near = "no buffer is registered before it";
    if (region != registered.end() && region->first <= at) near = "byte " + std::to_string(at - region->first) + " of a buffer of " + std::to_string(region->second.bytes);
    fail(std::string("out of bounds: ") + name(access) + " of " + std::to_string(bytes) + " bytes of global memory, " + near);
  }
  check_cells(region->second, at, bytes, access, true);
}

void check_shared(const void* address, size_t bytes, size_t alignment, Access access) {
  check_alignment(address, alignment, "shared");
  const auto* at = static_cast<const unsigned char*>(address);
  if (!shared.holds(at, bytes)) fail(std::string("out of bounds: ") + name(access) + " of " + std::to_string(bytes) + " bytes beyond the block's shared memory");
  check_cells(shared, at, bytes, access, false);
  if (settings().count_bank_conflicts) accesses[static_cast<size_t>(thread_in_block())].push_back({static_cast<size_t>(at - shared.begin), bytes});
}

void check_index(int64_t index, int64_t count, int64_t size) {
  if (index < 0 || index + count > size) {
    fail("out of bounds: elements " + std::to_string(index) + " to " + std::to_string(index + count - 1) + " of a shared array of " + std::to_string(size));
  }
}

void copy_async(void* to, const void* from, size_t bytes) {
  check_shared(to, bytes, bytes, Access::kWrite);
  if (from) check_global(from, bytes, bytes, Access::kRead);
  std::memset(to, 0xff, bytes);
  const size_t first = static_cast<size_t>(static_cast<unsigned char*>(to) - shared.begin) / kGranule;
  for (size_t cell = first; cell < first + bytes / kGranule; ++cell) shared.cells[cell].pending = true;
  open_group[static_cast<size_t>(thread_in_block())].push_back({static_cast<unsigned char*>(to), static_cast<const unsigned char*>(from), bytes});
}

void copy_commit() {
  const auto thread = static_cast<size_t>(thread_in_block());
  groups[thread].push_back(std::move(open_group[thread]));
  open_group[thread].clear();
}

void copy_wait(int most_pending_groups) {
  auto& mine = groups[static_cast<size_t>(thread_in_block())];
  while (static_cast<int>(mine.size()) > most_pending_groups) {
    for (const auto& copy : mine.front()) finish(copy);
    mine.pop_front();
  }
}

void begin_launch() { first_block = block_count + 1; }

void begin_block(unsigned char* memory, size_t bytes, int threads) {
  ++block_count;
  ++interval;
  shared.begin = memory;
  shared.bytes = bytes;
  shared.cells.assign((bytes + kGranule - 1) / kGranule, {});
  warp_steps.assign(static_cast<size_t>(threads / kWarp), 0);
  groups.assign(static_cast<size_t>(threads), {});
  open_group.assign(static_cast<size_t>(threads), {});
  accesses.assign(static_cast<size_t>(threads), {});
}

void end_block() {
  for (size_t thread = 0; thread < groups.size(); ++thread) {
    const bool pending = !open_group[thread].empty() || std::any_of(groups[thread].begin(), groups[thread].end(), [](const auto& group) { return !group.empty(); });
    if (pending) fail("the block ended with copies that thread " + std::to_string(thread) + " did not wait for");
  }
  for (size_t warp = 0; warp < warp_steps.size(); ++warp) flush_bank_conflicts(static_cast<int>(warp));
}

void order_block() { ++interval; }
void order_warp(int warp) { ++warp_steps[static_cast<size_t>(warp)]; }

// The k-th access of every lane since the warp's last instruction is one request. 32 banks of 4 bytes serve a request of 4 bytes a lane in one wavefront,
// of 8 in two, of 16 in four, unless two different words of a wavefront lie in one bank.
void flush_bank_conflicts(int warp) {
  if (!settings().count_bank_conflicts) return;
  for (size_t k = 0;; ++k) {
    std::vector<SharedAccess> request;
    for (int lane = 0; lane < kWarp; ++lane) {
      const auto& of_lane = accesses[static_cast<size_t>(warp * kWarp + lane)];
      if (k < of_lane.size()) request.push_back(of_lane[k]);
    }
    if (request.empty()) break;
    const size_t lanes_together = request[0].bytes <= 4 ? 32 : request[0].bytes == 8 ? 16 : 8;
    auto& counts = launch_counts()[running_kernel()];
    for (size_t begin = 0; begin < request.size(); begin += lanes_together) {
      std::set<size_t> words_of_bank[32];
      for (size_t lane = begin; lane < std::min(request.size(), begin + lanes_together); ++lane) {
        for (size_t word = request[lane].offset / 4; word <= (request[lane].offset + request[lane].bytes - 1) / 4; ++word) words_of_bank[word % 32].insert(word);
      }
      size_t most = 0;
      for (const auto& words : words_of_bank) most = std::max(most, words.size());
      ++counts.shared_requests;
      counts.shared_wavefronts += static_cast<int64_t>(most);
    }
  }
  for (int lane = 0; lane < kWarp; ++lane) accesses[static_cast<size_t>(warp * kWarp + lane)].clear();
}

}  // namespace graft::emulator
