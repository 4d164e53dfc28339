// Values as text: Python's str(), repr() and json.dumps().
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "data/templates/jinja/value.h"

namespace graft::jinja {

std::string integer_text(Integer value);
std::string float_text(double value);           // Python's repr: shortest digits that round-trip, exponent below 1e-4 and from 1e16
std::string repr_text(std::string_view text);   // with quotes and escapes

// str(value). Text as it is, undefined as nothing, all else as repr.
std::string to_text(Budget& budget, const Value& value);
void append_text(Budget& budget, const Value& value, std::string& out);
void append_repr(Budget& budget, const Value& value, std::string& out, int depth = 0);

struct JsonStyle {
  bool ensure_ascii = false;
  std::optional<std::string> indent;  // one level of it; nullopt: all on one line
  std::string item_separator = ", ", key_separator = ": ";
  bool sort_keys = false;
};
std::string json_dumps(Budget& budget, const Value& value, const JsonStyle& style);

}  // namespace graft::jinja
