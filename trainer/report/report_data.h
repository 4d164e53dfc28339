// What report.html is made from: the files of a run folder, as far as they are there.
#pragma once
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace graft {

struct ReportData {
  std::string name;                                 // the run folder's
  std::string recipe_text;
  nlohmann::ordered_json recipe, manifest, plan, evaluation;   // null: not there
  std::vector<nlohmann::ordered_json> metrics;
  std::vector<std::pair<std::string, nlohmann::ordered_json>> certificates;   // by file name, sorted
  std::vector<std::string> unreadable;              // files that are there and cannot be read
  bool examples = false;                            // the recipe's report.examples
};

ReportData read_report_data(const std::filesystem::path& run);

}  // namespace graft
