// Limits of the processor's time, which other work on the machine does not run down as it does the clock's: an input may take one second; fuzzing ends after GRAFT_FUZZ_SECONDS.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include <unistd.h>

namespace graft {

class ProcessorTime {   // of one input
 public:
  ProcessorTime() = default;
  ~ProcessorTime() {
    static const double most = std::getenv("GRAFT_FUZZ_SECONDS") ? std::atof(std::getenv("GRAFT_FUZZ_SECONDS")) : 900;
    static int64_t inputs = 0;
    const double total = now(), seconds = total - begin_;
    ++inputs;
    if (seconds > 1) {
      std::fprintf(stderr, "an input took %.2f s of the processor's time, at most 1 expected\n", seconds);
      __builtin_trap();
    }
    if (total < most) return;
    std::fprintf(stderr, "%.0f s of the processor's time, %lld inputs: nothing found\n", total, static_cast<long long>(inputs));
    _exit(0);   // exit() in an input counts as a crash
  }
  ProcessorTime(const ProcessorTime&) = delete;
  ProcessorTime& operator=(const ProcessorTime&) = delete;

 private:
  static double now() {
    timespec time = {};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  }
  const double begin_ = now();
};

}  // namespace graft
