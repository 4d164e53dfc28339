// A JSONL file, or standard input ("-"), line by line: each line's object, with its place for errors.
#pragma once
#include <functional>
#include <string>

#include <nlohmann/json.hpp>

namespace graft {

// Calls function(object, "file:line") for every line but empty ones, and bad(problem, "file:line") for one that is no JSON object; without
// `bad` that is a UserError. UserError when the file cannot be read.
void for_each_json_line(const std::string& file, const std::function<void(const nlohmann::ordered_json&, const std::string&)>& function,
                        const std::function<void(const std::string&, const std::string&)>& bad = {});

}  // namespace graft
