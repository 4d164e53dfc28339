// manifest.json of a run folder: what went in, by SHA-256, so that a result can be traced and a resume or replay refused when something
// changed. It holds no row, no host or user name and no absolute path.
#pragma once
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>
#include <stop_token>

#include <nlohmann/json.hpp>

#include "trainer/report/machine_info.h"

namespace graft {

struct ManifestFile {
  std::string name;       // file name without directories
  std::string sha256;
  uint64_t bytes = 0;
};

struct Manifest {
  std::string program_version;               // "0.1.0"
  std::string program_build;                 // program_build_id()
  std::map<std::string, std::string> versions;   // "libtorch": "2.11.0", ...
  std::string base_name;                     // file or folder name of the base
  std::vector<ManifestFile> base;            // its weight and configuration files
  std::string teacher_name;                  // of a distillation: likewise, or "self"; else empty
  std::vector<ManifestFile> teacher;         // its weight files and its adapter's
  std::string family;
  std::string tokenizer_sha256, template_sha256;
  std::string template_date;                 // resolved
  std::vector<ManifestFile> train, validation, test;
  std::string rows_sha256;                   // of all row ids in order
  std::string recipe_sha256;                 // of recipe.yaml as written
  std::string base_licence, teacher_licence; // as the model states it; empty: it states none
  int64_t threads = 0, seed = 0;
  std::string compute;                       // bfloat16 | float32
  std::string device;                        // "cpu", "cuda: NVIDIA H100 80GB HBM3, sm_90"
  bool bit_exact = true;                     // false after --not-bit-exact
  std::string started;                       // UTC, 2026-11-22T08:00:00Z; SOURCE_DATE_EPOCH is honoured
  MachineInfo machine;
  nlohmann::ordered_json extra = nlohmann::ordered_json::object();   // further top-level keys: chain, adapter hash, seconds, ...
};

// {"format": 1, "program": {...}, "base": {...}, ...}; `extra` at the end.
nlohmann::ordered_json to_json(const Manifest& manifest);
// Reads what to_json writes; unknown top-level keys go to `extra`. Throws UserError for another format or a missing key.
Manifest manifest_from_json(const nlohmann::ordered_json& json, const std::string& name);

void write_manifest(const std::filesystem::path& path, const Manifest& manifest);
Manifest read_manifest(const std::filesystem::path& path);

// Name, bytes and SHA-256 of a file. Throws std::runtime_error once `stop` is asked for.
ManifestFile manifest_file(const std::filesystem::path& path, std::stop_token stop = {});
// SOURCE_DATE_EPOCH if set, else now: "2026-11-22T08:00:00Z".
std::string utc_now();

// What a bit-exact resume or replay needs to be equal: each "key: old -> new". Empty: nothing differs.
std::vector<std::string> manifest_differences(const Manifest& old, const Manifest& now);

}  // namespace graft
