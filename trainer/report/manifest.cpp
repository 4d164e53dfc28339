#include "trainer/report/manifest.h"

#include <cstdlib>
#include <ctime>
#include <fstream>
#include <set>

#include "checkpoints/atomic_file.h"
#include "checkpoints/hash.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

using Json = nlohmann::ordered_json;

Json files_json(const std::vector<ManifestFile>& files) {
  Json list = Json::array();
  for (const ManifestFile& file : files) list.push_back({{"name", file.name}, {"bytes", file.bytes}, {"sha256", file.sha256}});
  return list;
}

std::vector<ManifestFile> files_from(const Json& list) {
  std::vector<ManifestFile> files;
  for (const Json& file : list) files.push_back({file.at("name"), file.at("sha256"), file.at("bytes")});
  return files;
}

Json text_or_null(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }
std::string text_from(const Json& value) { return value.is_null() ? std::string() : value.get<std::string>(); }

std::string hashes_of(const std::vector<ManifestFile>& files) {
  std::string text;
  for (const ManifestFile& file : files) text += (text.empty() ? "" : " ") + file.name + "@" + file.sha256.substr(0, 12);
  return text.empty() ? "(none)" : text;
}

}  // namespace

Json to_json(const Manifest& manifest) {
  Json json;
  json["format"] = 1;
  json["program"] = {{"version", manifest.program_version}, {"build", manifest.program_build}, {"versions", manifest.versions}};
  json["base"] = {{"name", manifest.base_name}, {"family", manifest.family}, {"licence", text_or_null(manifest.base_licence)},
                  {"files", files_json(manifest.base)}};
  json["teacher_licence"] = text_or_null(manifest.teacher_licence);
  if (!manifest.teacher_name.empty()) json["teacher"] = {{"name", manifest.teacher_name}, {"files", files_json(manifest.teacher)}};
  json["tokenizer"] = {{"sha256", manifest.tokenizer_sha256}};
  json["template"] = {{"sha256", text_or_null(manifest.template_sha256)}, {"date", text_or_null(manifest.template_date)}};
  json["data"] = {{"train", files_json(manifest.train)},
                  {"validation", files_json(manifest.validation)},
                  {"test", files_json(manifest.test)},
                  {"rows_sha256", manifest.rows_sha256}};
  json["recipe"] = {{"sha256", manifest.recipe_sha256}};
  json["run"] = {{"seed", manifest.seed},     {"threads", manifest.threads},     {"compute", manifest.compute},
                 {"device", manifest.device}, {"bit_exact", manifest.bit_exact}, {"started", manifest.started}};
  json["machine"] = to_json(manifest.machine);
  for (const auto& [key, value] : manifest.extra.items()) json[key] = value;
  return json;
}

Manifest manifest_from_json(const Json& json, const std::string& name) {
  if (!json.is_object() || json.value("format", Json()) != 1) {
    fail("report", "expected a manifest of format 1, got {} ({}) — was it written by another version?",
         json.is_object() ? json.value("format", Json()).dump() : "something else", name);
  }
  try {
    Manifest manifest;
    const Json& program = json.at("program");
    manifest.program_version = program.at("version");
    manifest.program_build = program.at("build");
    manifest.versions = program.at("versions").get<std::map<std::string, std::string>>();
    const Json& base = json.at("base");
    manifest.base_name = base.at("name");
    manifest.family = base.at("family");
    manifest.base_licence = text_from(base.at("licence"));
    manifest.base = files_from(base.at("files"));
    manifest.teacher_licence = text_from(json.at("teacher_licence"));
    if (const auto teacher = json.find("teacher"); teacher != json.end()) {
      manifest.teacher_name = teacher->at("name");
      manifest.teacher = files_from(teacher->at("files"));
    }
    manifest.tokenizer_sha256 = json.at("tokenizer").at("sha256");
    manifest.template_sha256 = text_from(json.at("template").at("sha256"));
    manifest.template_date = text_from(json.at("template").at("date"));
    const Json& data = json.at("data");
    manifest.train = files_from(data.at("train"));
    manifest.validation = files_from(data.at("validation"));
    manifest.test = files_from(data.at("test"));
    manifest.rows_sha256 = data.at("rows_sha256");
    manifest.recipe_sha256 = json.at("recipe").at("sha256");
    const Json& run = json.at("run");
    manifest.seed = run.at("seed");
    manifest.threads = run.at("threads");
    manifest.compute = run.at("compute");
    manifest.device = run.at("device");
    manifest.bit_exact = run.at("bit_exact");
    manifest.started = run.at("started");
    const Json& machine = json.at("machine");
    manifest.machine = {machine.at("cpu"),          machine.at("instruction_set"), machine.at("cores"),
                        machine.at("memory_bytes"), machine.at("kernel"),          machine.value("gpu", "")};
    static const std::set<std::string> kKnown = {"format",    "program", "base",   "teacher_licence", "teacher", "tokenizer",
                                                 "template", "data",    "recipe", "run",             "machine"};
    for (const auto& [key, value] : json.items()) {
      if (!kKnown.contains(key)) manifest.extra[key] = value;
    }
    return manifest;
  } catch (const Json::exception& error) {
    fail("report", "expected a complete manifest, got a missing or ill-typed key: {} ({})", error.what(), name);
  }
}

void write_manifest(const std::filesystem::path& path, const Manifest& manifest) {
  write_file_atomic(path, to_json(manifest).dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

Manifest read_manifest(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail("report", "expected a run's manifest, got no readable file {} — is this a run folder?", path.string());
  return manifest_from_json(Json::parse(file, nullptr, false), path.string());
}

ManifestFile manifest_file(const std::filesystem::path& path, std::stop_token stop) {
  return {path.filename().string(), sha256_file(path, std::move(stop)), std::filesystem::file_size(path)};
}

std::string utc_now() {
  std::time_t now = std::time(nullptr);
  if (const char* fixed = std::getenv("SOURCE_DATE_EPOCH"); fixed != nullptr && *fixed != '\0') now = std::atoll(fixed);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[64];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

std::vector<std::string> manifest_differences(const Manifest& old, const Manifest& now) {
  std::vector<std::string> lines;
  const auto compare = [&](const char* key, const auto& before, const auto& after) {
    if (before != after) lines.push_back(fmt::format("{}: {} -> {}", key, before, after));
  };
  compare("base", hashes_of(old.base), hashes_of(now.base));
  compare("teacher", hashes_of(old.teacher), hashes_of(now.teacher));
  compare("tokenizer", old.tokenizer_sha256, now.tokenizer_sha256);
  compare("template", old.template_sha256, now.template_sha256);
  compare("template date", old.template_date, now.template_date);
  compare("train files", hashes_of(old.train), hashes_of(now.train));
  compare("validation files", hashes_of(old.validation), hashes_of(now.validation));
  compare("test files", hashes_of(old.test), hashes_of(now.test));
  compare("rows", old.rows_sha256, now.rows_sha256);
  compare("program build", old.program_build, now.program_build);
  compare("run.threads", old.threads, now.threads);
  compare("compute", old.compute, now.compute);
  compare("device", old.device, now.device);
  compare("instruction set", old.machine.instruction_set, now.machine.instruction_set);
  compare("GPU", old.machine.gpu, now.machine.gpu);
  return lines;
}

}  // namespace graft
