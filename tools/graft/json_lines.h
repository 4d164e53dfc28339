// A JSONL file, or standard input ("-"), line by line: each line's object, with its place for errors.
#pragma once
#include <functional>
#include <string>

#include <nlohmann/json.hpp>

namespace graft {

// Calls function(object, "file:line") for every line but empty ones. UserError with the place: no such file, a line that is not a JSON object.
void for_each_json_line(const std::string& file, const std::function<void(const nlohmann::ordered_json&, const std::string&)>& function);

}  // namespace graft
