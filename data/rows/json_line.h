// One line of a JSONL file, strictly: what a lenient reader would lose silently is an error.
#pragma once
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "data/rows/row_problems.h"

namespace graft {

// A parse error with its column, counted in characters from 1.
class JsonProblem : public RowProblem {
 public:
  JsonProblem(int64_t column, const std::string& reason) : RowProblem(reason), column(column) {}
  int64_t column;
};

// Keys keep their order. Errors: syntax, duplicate keys, integers beyond 64 bits (they would turn into rounded doubles),
// nesting deeper than 128, more than 4,096 keys in one object. `line` must be valid UTF-8. Row text does not appear in the
// messages.
nlohmann::ordered_json parse_json_line(std::string_view line);

}  // namespace graft
