#include "trainer/runs/stop_signals.h"

#include <atomic>
#include <csignal>

namespace graft {
namespace {

std::atomic<int> stop_signal{0};

void on_stop_signal(int signal) {
  if (stop_signal.exchange(signal) != 0) {   // the second time: now
    std::signal(signal, SIG_DFL);
    raise(signal);
  }
}

}  // namespace

void install_stop_signals() {
  struct sigaction action = {};
  action.sa_handler = on_stop_signal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

void restore_stop_signals() {
  for (const int signal : {SIGINT, SIGTERM}) std::signal(signal, SIG_DFL);
  if (const int pending = pending_stop_signal(); pending != 0) raise(pending);
}

int pending_stop_signal() { return stop_signal.load(); }

}  // namespace graft
