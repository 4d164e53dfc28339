// Tasks of unequal size over the threads.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>

#include <ATen/Parallel.h>

namespace graft {

// Calls f(task) on every task, each on one thread; which one is left to chance, so tasks write apart from each other. Threads take one after another: the largest
// should stand first.
template <typename Tasks, typename Function>
void for_each_task(const Tasks& tasks, const Function& f) {
  std::atomic<size_t> next{0};
  const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  at::parallel_for(0, std::min<int64_t>(threads, static_cast<int64_t>(tasks.size())), 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) {
      for (size_t t = next++; t < tasks.size(); t = next++) f(tasks[t]);
    }
  });
}

}  // namespace graft
