#include "trainer/exports/hub_files.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <set>

#include "checkpoints/atomic_file.h"
#include "kernels/common/error.h"
#include "trainer/exports/kept_layers.h"
#include "trainer/models/families/family.h"
#include "trainer/models/families/wrapped_text.h"

namespace graft {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

std::string read_text(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) fail("exports", "expected {} to be readable — check the base's files", path.string());
  return {std::istreambuf_iterator<char>(in), {}};
}

// Null when the file is absent.
ordered_json read_json(const fs::path& path) {
  if (!fs::exists(path)) return nullptr;
  auto json = ordered_json::parse(read_text(path), nullptr, false);
  if (!json.is_object()) fail("exports", "expected a JSON object in {}, got something else — the base is damaged", path.string());
  return json;
}

void write_json(const fs::path& path, const ordered_json& json) {
  write_file_atomic(path, json.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n");
}

const char* torch_name(TensorType type) {
  return type == TensorType::kF32 ? "float32" : type == TensorType::kF16 ? "float16" : "bfloat16";
}

// Where the file was made, and code that graft neither runs nor copies.
void drop_foreign_keys(ordered_json& json) {
  for (const char* key : {"_name_or_path", "_model_name_or_path", "name_or_path", "auto_map", "quantization_config"}) json.erase(key);
}

void set_if_absent(ordered_json& json, const ordered_json& source, const char* key) {
  if (source.contains(key) && (!json.contains(key) || json[key].is_null())) json[key] = source[key];
}

}  // namespace

ordered_json hub_config(const ExportSource& source, TensorType type) {
  const auto made = config_from_spec(*source.spec);
  ordered_json config = source.is_gguf() ? made : read_json(source.base / "config.json");
  if (wraps_text(config)) {   // the text part is all that is exported
    config = wrapped_text_config(config);
    config["architectures"] = made["architectures"];
  }
  drop_foreign_keys(config);
  if (source.is_cut()) cut_config(config, source);
  for (const char* key : {"rope_theta", "rope_scaling", "rope_parameters"}) set_if_absent(config, made, key);
  if (source.is_gguf() && source.tokenizer) {
    const auto set_id = [&](const char* key, const std::optional<int32_t>& id) {
      if (id) config[key] = *id;
    };
    set_id("bos_token_id", source.tokenizer->bos_id);
    set_id("eos_token_id", source.tokenizer->eos_id);
    set_id("pad_token_id", source.tokenizer->pad_id);
  }
  config["torch_dtype"] = config["dtype"] = torch_name(type);
  return config;
}

ordered_json hub_generation_config(const ExportSource& source) {
  ordered_json config = source.is_gguf() ? ordered_json(nullptr) : read_json(source.base / "generation_config.json");
  if (config.is_null()) config = ordered_json::object();
  if (!source.tokenizer) return config;
  const auto& tokenizer = *source.tokenizer;
  if (tokenizer.bos_id && !config.contains("bos_token_id")) config["bos_token_id"] = *tokenizer.bos_id;
  if (tokenizer.pad_id && !config.contains("pad_token_id")) config["pad_token_id"] = *tokenizer.pad_id;
  std::vector<int32_t> ends;
  const auto add = [&](int32_t id) {
    if (std::find(ends.begin(), ends.end(), id) == ends.end()) ends.push_back(id);
  };
  if (config.contains("eos_token_id")) {
    for (const auto& id : config["eos_token_id"].is_array() ? config["eos_token_id"] : ordered_json::array({config["eos_token_id"]})) {
      if (id.is_number_integer()) add(id.get<int32_t>());
    }
  }
  if (tokenizer.eos_id) add(*tokenizer.eos_id);
  for (const auto id : tokenizer.stop_ids) add(id);
  if (!ends.empty()) config["eos_token_id"] = ends;
  return config;
}

bool write_tokenizer_files(const ExportSource& source, const fs::path& folder) {
  ordered_json config;
  if (source.is_gguf()) {
    if (!source.tokenizer) return false;
    write_file_atomic(folder / "tokenizer.json", source.tokenizer->to_tokenizer_json().dump(-1, ' ', false, ordered_json::error_handler_t::replace));
    config = source.tokenizer->to_tokenizer_config();
  } else {
    bool any = false;
    for (const char* name : {"tokenizer.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model"}) {
      if (!fs::exists(source.base / name)) continue;
      write_file_atomic(folder / name, read_text(source.base / name));
      any = true;
    }
    config = read_json(source.base / "tokenizer_config.json");
    if (!any && config.is_null()) return false;
  }
  if (!config.is_null()) {
    drop_foreign_keys(config);
    if (source.chat_template && config.contains("chat_template")) config["chat_template"] = source.chat_template->source();
    write_json(folder / "tokenizer_config.json", config);
  }
  return true;
}

std::vector<fs::path> files_in(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

uint64_t bytes_in(const std::vector<fs::path>& files) {
  uint64_t bytes = 0;
  for (const auto& file : files) bytes += fs::file_size(file);
  return bytes;
}

}  // namespace graft
