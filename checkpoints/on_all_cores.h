// Work on tensors before LibTorch's threads are there.
#pragma once
#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <vector>

namespace graft {

// f(i) for 0 <= i < count, each on one thread, on as many as there are cores. Of several exceptions that of the smallest i, whoever came first.
template <typename Function>
void on_all_cores(size_t count, const Function& f) {
  std::vector<std::exception_ptr> errors(count);
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i = next++; i < count; i = next++) {
      try {
        f(i);
      } catch (...) {
        errors[i] = std::current_exception();
      }
    }
  };
  {
    std::vector<std::jthread> workers(std::max(1U, std::thread::hardware_concurrency()));
    for (auto& worker : workers) worker = std::jthread(work);
  }
  for (const auto& error : errors)
    if (error) std::rethrow_exception(error);
}

}  // namespace graft
