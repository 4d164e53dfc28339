#include "trainer/report/metrics_log.h"

#include <fstream>
#include <string>

#include "kernels/common/error.h"

namespace graft {

using Json = nlohmann::ordered_json;

void MetricsLog::append(const Json& line) { file_.append(line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"); }

void MetricsLog::cut_back_to(int64_t step) {
  const std::string content = file_.read_all();
  size_t keep = 0;
  while (true) {
    const size_t end = content.find('\n', keep);
    if (end == std::string::npos) break;
    const Json line = Json::parse(content.begin() + keep, content.begin() + end, nullptr, false);
    if (!line.is_object() || !line.contains("step") || !line["step"].is_number_integer() || line["step"] > step) break;
    keep = end + 1;
  }
  if (keep < content.size()) file_.truncate(keep);
}

std::vector<Json> read_metrics(const std::filesystem::path& path) {
  std::vector<Json> lines;
  std::ifstream file(path, std::ios::binary);
  std::string text;
  while (std::getline(file, text)) {
    if (file.eof()) break;   // no line end: a kill cut it short
    Json line = Json::parse(text, nullptr, false);
    if (!line.is_object()) fail("report", "expected a JSON object, got something else ({}:{})", path.string(), lines.size() + 1);
    lines.push_back(std::move(line));
  }
  return lines;
}

}  // namespace graft
