// What one rendering may use. Every operation on values pays here, so an untrusted template ends in bounded time and memory.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>

#include "data/templates/jinja/error.h"
#include "data/templates/rendered_text.h"

namespace graft::jinja {

using Limits = RenderLimits;

struct BoundExceeded {
  std::string message;
};

class Budget {
 public:
  explicit Budget(const Limits& limits) : limits_(limits) {}
  const Limits& limits() const { return limits_; }

  void pay(int64_t steps = 1) {
    steps_ += steps;
    if (steps_ > limits_.steps) throw BoundExceeded{fmt::format("more than {} steps", limits_.steps)};
  }
  void pay_for_text(size_t bytes) { pay(1 + static_cast<int64_t>(bytes / 64)); }

  // Called before a string of that length is built.
  void check_text(size_t bytes) const {
    if (bytes > limits_.output) throw BoundExceeded{fmt::format("more than {} bytes of text", limits_.output)};
  }
  void check_nesting(int depth) const {
    if (depth > limits_.nesting) throw BoundExceeded{fmt::format("values nested more than {} deep", limits_.nesting)};
  }
  void allocate(size_t bytes) {
    if (bytes > limits_.memory || alive_ > limits_.memory - bytes) {
      throw BoundExceeded{fmt::format("more than {} bytes of values", limits_.memory)};
    }
    alive_ += bytes;
  }
  void release(size_t bytes) { alive_ -= bytes; }

 private:
  Limits limits_;
  int64_t steps_ = 0;
  size_t alive_ = 0;
};

// Holds a value's share of the memory for as long as the value lives. Constants of the template have no budget.
class Charge {
 public:
  Charge() = default;
  Charge(Budget* budget, size_t bytes) : budget_(budget), bytes_(bytes) {
    if (budget_) budget_->allocate(bytes_);
  }
  Charge(Charge&& other) noexcept : budget_(std::exchange(other.budget_, nullptr)), bytes_(other.bytes_) {}
  Charge& operator=(Charge&& other) noexcept {
    std::swap(budget_, other.budget_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Charge() {
    if (budget_) budget_->release(bytes_);
  }

 private:
  Budget* budget_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace graft::jinja
