// Errors of the whole program. A UserError is printed by the command line in one paragraph without a stack trace.
// Text: "[graft.<area>] expected ..., got ... (file:line or tensor) — what to do".
#pragma once
#include <stdexcept>
#include <string>
#include <utility>

#include <fmt/format.h>

namespace graft {

// Exit codes of the command line (DESIGN section 4).
enum class ExitCode : int { kDone = 0, kAnswerIsNo = 1, kWrongInput = 2, kMachineFailed = 3 };

// Wrong input or use: a file, a recipe, an argument. Exit code 2.
class UserError : public std::runtime_error {
 public:
  UserError(std::string area, const std::string& message)
      : std::runtime_error("[graft." + area + "] " + message), area_(std::move(area)) {}
  const std::string& area() const { return area_; }

 private:
  std::string area_;
};

// Disk, memory or device failed: not the user's input. Exit code 3.
class MachineError : public std::runtime_error {
 public:
  MachineError(const std::string& area, const std::string& message) : std::runtime_error("[graft." + area + "] " + message) {}
};

// fail("gguf", "expected ..., got {} ...", value): throws UserError.
template <typename... Args>
[[noreturn]] void fail(const std::string& area, fmt::format_string<Args...> text, Args&&... args) {
  throw UserError(area, fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace graft
