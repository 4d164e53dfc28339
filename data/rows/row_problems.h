// Collects what is wrong with a file, so that the user sees up to 20 problems at once instead of one per attempt.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include <fmt/ranges.h>

#include "kernels/common/error.h"

namespace graft {

// What is wrong with one row; read_rows adds file and line.
class RowProblem : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <typename... Args>
[[noreturn]] void fail_row(fmt::format_string<Args...> text, Args&&... args) {
  throw RowProblem(fmt::format(text, std::forward<Args>(args)...));
}

class RowProblems {
 public:
  static constexpr size_t kShown = 20;
  // place: "train.jsonl:17" or "train.jsonl:17:5" (column).
  void add(const std::string& place, const std::string& reason) {
    ++count_;
    if (lines_.size() < kShown) lines_.push_back(fmt::format("\n  {}: {}", place, reason));
  }
  void add_all(const RowProblems& other) {
    for (size_t index = 0; index < other.lines_.size() && lines_.size() < kShown; ++index)
      lines_.push_back(other.lines_[index]);
    count_ += other.count_;
  }
  int64_t count() const { return count_; }
  // "2 problems:\n  place: reason\n  ...".
  std::string text() const {
    std::string all = fmt::format("{} problem{}:{}", count_, count_ == 1 ? "" : "s", fmt::join(lines_, ""));
    const int64_t hidden = count_ - static_cast<int64_t>(lines_.size());
    if (hidden > 0) all += fmt::format("\n  ... and {} more", hidden);
    return all;
  }
  // Throws if there are any: "expected <expected>, got 2 problems: ... — <advice>".
  void throw_if_any(const std::string& expected, const std::string& advice) const {
    if (count_ > 0) fail("data", "expected {}, got {}\n— {}", expected, text(), advice);
  }

 private:
  int64_t count_ = 0;
  std::vector<std::string> lines_;
};

}  // namespace graft
