// Reads the arguments of a filter, method or global by position or name, as a Python signature does.
#pragma once
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "data/templates/jinja/renderer.h"

namespace graft::jinja {

class Parameters {
 public:
  // names: the parameters after the subject; an error names `function`.
  Parameters(const char* function, CallArguments& arguments, std::initializer_list<const char*> names);
  bool has(size_t i) const { return values_[i].has_value(); }
  Value get(size_t i, Value otherwise) const { return has(i) ? *values_[i] : std::move(otherwise); }
  const Value& need(size_t i) const;                        // TypeError when absent
  const std::string& need_text(size_t i) const;             // and when it is not text
  bool flag(size_t i, bool otherwise = false) const;        // truth of it
  int64_t integer(size_t i, int64_t otherwise) const;       // TypeError when it is not an int
  bool given(size_t i) const { return has(i) && !values_[i]->is(Kind::kNone); }

 private:
  const char* function_;
  std::vector<const char*> names_;
  std::vector<std::optional<Value>> values_;
};

}  // namespace graft::jinja
