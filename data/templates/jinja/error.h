// What can go wrong in a template, in Python's words, so that a message can be compared with what transformers reports.
#pragma once
#include <string>
#include <utility>

#include "kernels/common/error.h"

namespace graft::jinja {

// Thrown by operations on values; the renderer adds template name and line and rethrows it as TemplateError.
struct PythonError {
  std::string type;     // "TypeError", "UndefinedError", "SecurityError", ...
  std::string message;  // without the type
};

[[noreturn]] inline void raise_python(std::string type, std::string message) {
  throw PythonError{std::move(type), std::move(message)};
}

}  // namespace graft::jinja

namespace graft {

// A template that does not compile, or a rendering that failed.
class TemplateError : public UserError {
 public:
  enum class Kind {
    kSyntax,          // found when the template was read
    kRaiseException,  // the template called raise_exception: the conversation does not suit it
    kRuntime,         // an operation failed as it does in Python
    kBound            // more steps, depth, output or memory than a template may use
  };
  TemplateError(Kind kind, std::string type, std::string message, std::string template_name, int line, const std::string& text)
      : UserError("template", text),
        kind(kind),
        type(std::move(type)),
        message(std::move(message)),
        template_name(std::move(template_name)),
        line(line) {}

  const Kind kind;
  const std::string type;           // Python's exception type
  const std::string message;        // Python's message
  const std::string template_name;  // as given to ChatTemplate
  const int line;                   // of the template, counted from 1
};

}  // namespace graft
