#include "trainer/parallel/heartbeat.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace graft {
namespace {

using namespace std::chrono_literals;
constexpr auto kInterval = 1s;
constexpr double kGoneSeconds = 6;        // once a connection has broken: a rank that lives has counted by then
constexpr double kExplainSeconds = 20;
constexpr double kStoreGoneSeconds = 8;   // a store whose connection broke: its host is gone, but its last words may still be on their way
constexpr double kSuspendedSeconds = 5;   // between two looks at the clock: this process itself was stopped meanwhile
constexpr const char* kCauseKey = "cause";

std::string alive_key(int rank) { return fmt::format("alive/{}", rank); }

double since(std::chrono::steady_clock::time_point point) { return std::chrono::duration<double>(std::chrono::steady_clock::now() - point).count(); }

}  // namespace

std::string EndCause::to_text() const {
  return nlohmann::json({{"rank", rank}, {"step", step}, {"operation", operation}, {"what", what}, {"exit_code", exit_code}})
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

EndCause EndCause::from_text(const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) return {0, 0, "", text, 3};
  return {json.value("rank", 0), json.value("step", int64_t{0}), json.value("operation", ""), json.value("what", ""), json.value("exit_code", 3)};
}

Heartbeat::Heartbeat(int rank, int size, bool keeps_store, HeartbeatStore store, std::function<void(const EndCause&)> on_end)
    : rank_(rank), size_(size), keeps_store_(keeps_store), store_(std::move(store)), on_end_(std::move(on_end)), counts_(static_cast<size_t>(size)),
      seen_(static_cast<size_t>(size), Clock::now()), round_(Clock::now()) {
  beating_ = std::thread([this] { beat(); });
  watching_ = std::thread([this] { watch(); });
}

Heartbeat::~Heartbeat() {
  stop_ = true;
  beating_.join();
  watching_.join();
}

void Heartbeat::set_place(int64_t step, const std::string& operation) {
  const std::lock_guard lock(mutex_);
  step_ = step;
  operation_ = operation;
}

EndCause Heartbeat::place(int rank, const std::string& what) const {
  const std::lock_guard lock(mutex_);
  return {rank, step_, operation_, what, 3};
}

EndCause Heartbeat::publish(const EndCause& cause) {
  if (store_broke_) return cause;
  try {
    return EndCause::from_text(store_.set_once(kCauseKey, cause.to_text()));
  } catch (const std::exception&) {
    return cause;
  }
}

void Heartbeat::beat() {
  std::vector<std::string> keys;
  for (int rank = 0; rank < size_; ++rank) keys.push_back(alive_key(rank));
  for (int64_t count = 1; !stop_; ++count) {
    try {
      store_.set(alive_key(rank_), std::to_string(count));
      const auto counts = store_.get(keys);
      {
        const std::lock_guard lock(mutex_);
        round_ = Clock::now();
        for (size_t rank = 0; rank < counts.size(); ++rank) {
          if (counts[rank] != counts_[rank]) seen_[rank] = round_;
        }
        counts_ = counts;
      }
      if (store_.has(kCauseKey) && !stop_) on_end_(EndCause::from_text(store_.get({kCauseKey}).at(0)));
    } catch (const std::exception&) {
      store_broke_ = true;
      return;   // the watch draws the conclusion
    }
    for (auto waited = 0ms; waited < kInterval && !stop_; waited += 50ms) std::this_thread::sleep_for(50ms);
  }
}

int Heartbeat::most_silent(double& seconds) const {
  const std::lock_guard lock(mutex_);
  int silent = rank_;
  seconds = 0;
  for (int rank = 0; rank < size_; ++rank) {
    // Silence counts up to the last answer of the store: what came later nobody could have seen.
    const double silence = std::chrono::duration<double>(round_ - seen_[static_cast<size_t>(rank)]).count();
    if (rank != rank_ && silence > seconds) {
      silent = rank;
      seconds = silence;
    }
  }
  return silent;
}

void Heartbeat::forgive(double seconds) {
  const std::lock_guard lock(mutex_);
  const auto gap = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  round_ += gap;
  for (auto& seen : seen_) seen += gap;
}

void Heartbeat::watch() {
  const auto keeper = [&] { return place(0, "it keeps the store where the ranks meet and no longer answers: killed, stopped, or its network is down"); };
  auto broke = Clock::now(), tick = Clock::now();
  for (bool broken = false; !stop_; std::this_thread::sleep_for(50ms)) {
    if (const double gap = since(tick); gap > kSuspendedSeconds) forgive(gap);
    tick = Clock::now();
    double silence = 0;
    const int silent = most_silent(silence);
    if (silence > kSilenceSeconds) {
      on_end_(publish(place(silent, fmt::format("it has not answered for {:.0f} s: stopped, swapping, or its network is down", silence))));
    }
    double unanswered = 0;
    {
      const std::lock_guard lock(mutex_);
      unanswered = since(round_);
    }
    if (unanswered > kSilenceSeconds && !keeps_store_) on_end_(keeper());
    if (store_broke_ && !broken) {
      broken = true;
      broke = Clock::now();
    }
    if (broken && since(broke) > kStoreGoneSeconds) on_end_(keeper());
  }
}

void Heartbeat::explain(const std::string& text) {
  const auto start = Clock::now();
  while (since(start) < kExplainSeconds) {   // another rank's cause may arrive meanwhile: then beat() or watch() ends the process
    std::this_thread::sleep_for(50ms);
    double silence = 0;
    const int silent = most_silent(silence);
    if (silence > kGoneSeconds) on_end_(publish(place(silent, "its process is gone, without a word: killed, out of memory, or its machine failed")));
  }
  on_end_(publish(place(rank_, text)));
  std::abort();
}

}  // namespace graft
