#include "trainer/report/report_data.h"

#include <algorithm>
#include <fstream>
#include <sstream>

#include "kernels/common/error.h"
#include "trainer/recipe/yaml_tree.h"
#include "trainer/report/html_text.h"
#include "trainer/report/metrics_log.h"

namespace graft {
namespace {

using Json = nlohmann::ordered_json;

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

Json read_json(const std::filesystem::path& path, std::vector<std::string>& unreadable) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return nullptr;
  Json json = Json::parse(read_text(path), nullptr, false);
  if (json.is_object()) return json;
  unreadable.push_back(path.filename().string());
  return nullptr;
}

}  // namespace

ReportData read_report_data(const std::filesystem::path& run) {
  if (!std::filesystem::is_directory(run)) fail("report", "expected a run folder, got {} — give the folder that `graft train` wrote", run.string());
  ReportData data;
  data.name = std::filesystem::weakly_canonical(run).filename().string();
  data.recipe_text = read_text(run / "recipe.yaml");
  try {
    if (!data.recipe_text.empty()) data.recipe = yaml_to_json(parse_yaml(data.recipe_text, "recipe.yaml"));
  } catch (const UserError&) {
    data.unreadable.push_back("recipe.yaml");
  }
  // Anything but a clear true keeps users' rows out.
  data.examples = html::child(html::child(data.recipe, "report"), "examples") == Json(true);
  data.manifest = read_json(run / "manifest.json", data.unreadable);
  data.plan = read_json(run / "plan.json", data.unreadable);
  data.evaluation = read_json(run / "evaluation.json", data.unreadable);
  try {
    data.metrics = read_metrics(run / "metrics.jsonl");
  } catch (const UserError&) {
    data.unreadable.push_back("metrics.jsonl");
  }
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(run / "certificates", error)) {
    if (entry.path().extension() != ".json") continue;
    if (Json certificate = read_json(entry.path(), data.unreadable); !certificate.is_null()) {
      data.certificates.emplace_back(entry.path().stem().string(), std::move(certificate));
    }
  }
  std::sort(data.certificates.begin(), data.certificates.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  return data;
}

}  // namespace graft
