// Notices that a rank is gone. Each rank counts in the store once a second; a rank whose count stands still for 40 seconds, or a store that does,
// ends this process with an error that names it. Collectives themselves have no time limit: a slow rank that lives is waited for.
//
// Two threads: one talks to the store, the other only watches the clock, so that a call into a store whose host is stopped cannot hang both.
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace graft {

// What the heartbeat needs of a store. Calls may throw when the store's host is gone.
struct HeartbeatStore {
  std::function<void(const std::string& key, const std::string& value)> set;
  std::function<std::vector<std::string>(const std::vector<std::string>& keys)> get;   // of keys that exist
  std::function<bool(const std::string& key)> has;
  std::function<std::string(const std::string& key, const std::string& value)> set_once;   // the value that stands there afterwards
};

// Why the run ends, as one rank found out and all report.
struct EndCause {
  int rank = 0;               // that failed
  int64_t step = 0;
  std::string operation, what;
  int exit_code = 3;
  std::string to_text() const;
  static EndCause from_text(const std::string& text);
};

class Heartbeat {
 public:
  // on_end gets the cause and does not return. All ranks' counts must be in the store already (key alive/<rank>).
  Heartbeat(int rank, int size, bool keeps_store, HeartbeatStore store, std::function<void(const EndCause&)> on_end);
  ~Heartbeat();   // stops both threads

  void set_place(int64_t step, const std::string& operation);
  EndCause place(int rank, const std::string& what) const;   // a cause with this rank's step and operation
  // Stores the cause unless another one stands there already; returns the one that stands. Gives the store's host time to hand it out.
  EndCause publish(const EndCause& cause);
  // A collective broke: finds out which rank is gone and calls on_end. `text`: what the collective said.
  [[noreturn]] void explain(const std::string& text);

  static constexpr double kSilenceSeconds = 40;

 private:
  using Clock = std::chrono::steady_clock;
  void beat();
  void watch();
  int most_silent(double& seconds) const;
  void forgive(double seconds);   // time in which this process itself stood still

  int rank_, size_;
  bool keeps_store_;
  HeartbeatStore store_;
  std::function<void(const EndCause&)> on_end_;
  mutable std::mutex mutex_;
  std::vector<std::string> counts_;
  std::vector<Clock::time_point> seen_;      // when a rank's count last changed
  Clock::time_point round_;                  // when the store last answered
  int64_t step_ = 0;
  std::string operation_ = "start";
  std::atomic<bool> stop_{false}, store_broke_{false};
  std::thread beating_, watching_;
};

}  // namespace graft
