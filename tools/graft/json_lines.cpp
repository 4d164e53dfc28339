#include "tools/graft/json_lines.h"

#include <filesystem>
#include <fstream>
#include <iostream>

#include "kernels/common/error.h"

namespace graft {

void for_each_json_line(const std::string& file, const std::function<void(const nlohmann::ordered_json&, const std::string&)>& function,
                        const std::function<void(const std::string&, const std::string&)>& bad) {
  std::ifstream opened;
  if (file != "-") {
    opened.open(file, std::ios::binary);
    if (!opened || std::filesystem::is_directory(file)) fail("data", "expected a readable JSONL file, got {} — check the path, or give - for standard input", file);
  }
  std::istream& in = file == "-" ? std::cin : opened;
  std::string line;
  for (int64_t number = 1; std::getline(in, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const auto place = (file == "-" ? "standard input" : file) + ':' + std::to_string(number);
    std::string problem;
    nlohmann::ordered_json object;
    try {
      object = nlohmann::ordered_json::parse(line);
      if (!object.is_object()) problem = std::string("expected one JSON object a line, got ") + object.type_name();
    } catch (const nlohmann::ordered_json::exception& error) {
      problem = std::string("expected one JSON object a line, got malformed JSON: ") + error.what();
    }
    if (problem.empty()) function(object, place);
    else if (bad) bad(problem, place);
    else fail("data", "{} ({})", problem, place);
  }
}

}  // namespace graft
