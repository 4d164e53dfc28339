#include "data/templates/jinja/arguments.h"

#include <algorithm>
#include <limits>

#include "data/templates/jinja/operators.h"

namespace graft::jinja {

Parameters::Parameters(const char* function, CallArguments& arguments, std::initializer_list<const char*> names)
    : function_(function), names_(names), values_(names.size()) {
  if (arguments.positional.size() > names_.size()) {
    raise_python("TypeError", fmt::format("{}() takes at most {} arguments ({} given)", function, names_.size(),
                                          arguments.positional.size()));
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = arguments.positional[i];
  for (const auto& [name, value] : arguments.keywords) {
    const auto found = std::find_if(names_.begin(), names_.end(), [&name = name](const char* known) { return name == known; });
    if (found == names_.end()) raise_python("TypeError", fmt::format("{}() got an unexpected keyword argument '{}'", function, name));
    auto& slot = values_[static_cast<size_t>(found - names_.begin())];
    if (slot) raise_python("TypeError", fmt::format("{}() got multiple values for argument '{}'", function, name));
    slot = value;
  }
}

const Value& Parameters::need(size_t i) const {
  if (!has(i)) raise_python("TypeError", fmt::format("{}() missing 1 required positional argument: '{}'", function_, names_[i]));
  return *values_[i];
}

const std::string& Parameters::need_text(size_t i) const {
  const Value& value = need(i);
  if (!value.is(Kind::kString)) {
    raise_python("TypeError", fmt::format("{}() argument {} must be str, not {}", function_, i + 1, type_name(value)));
  }
  return value.text();
}

bool Parameters::flag(size_t i, bool otherwise) const { return has(i) ? truth(*values_[i]) : otherwise; }

int64_t Parameters::integer(size_t i, int64_t otherwise) const {
  if (!has(i)) return otherwise;
  if (!values_[i]->is_integral()) {
    raise_python("TypeError", "'" + type_name(*values_[i]) + "' object cannot be interpreted as an integer");
  }
  return static_cast<int64_t>(std::clamp(values_[i]->as_integer(), Integer(std::numeric_limits<int64_t>::min()),
                                         Integer(std::numeric_limits<int64_t>::max())));
}

}  // namespace graft::jinja
