#include "trainer/models/families/config_reader.h"

#include <algorithm>

#include <fmt/ranges.h>

#include "kernels/common/error.h"

namespace graft {

using nlohmann::ordered_json;

ConfigReader::ConfigReader(const ordered_json& config, std::string family) : config_(config), family_(std::move(family)) {
  if (!config.is_object()) fail("models", "expected an object in config.json, got {} — is this a model directory?", config.type_name());
  ignore({"architectures", "model_type", "_name_or_path", "_model_name_or_path", "name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache",
          "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "eod_token_id", "initializer_range", "attention_dropout", "pretraining_tp",
          "output_hidden_states", "output_attentions", "return_dict", "chunk_size_feed_forward", "is_encoder_decoder",
          "is_llama_config", "id2label", "label2id", "problem_type", "unsloth_fixed", "unsloth_version", "_attn_implementation_autoset",
          "_attn_implementation", "rope_interleaved", "transformers.js_config", "auto_map"});
}

bool ConfigReader::has(const std::string& key) const { return config_.contains(key) && !config_.at(key).is_null(); }

const ordered_json& ConfigReader::at(const std::string& key) {
  static const ordered_json kNull;
  read_.insert(key);
  if (config_.contains(key)) return config_.at(key);
  if (std::find(missing_.begin(), missing_.end(), key) == missing_.end()) missing_.push_back(key);
  return kNull;
}

void ConfigReader::wrong(const std::string& key, const std::string& expected) {
  read_.insert(key);
  const auto text = config_.contains(key) ? config_.at(key).dump() : std::string("nothing");
  wrong_.push_back(fmt::format("{} is {}, expected {}", key, text.substr(0, 200), expected));
}

int64_t ConfigReader::need_int(const std::string& key, int64_t smallest, int64_t largest) {
  const auto& value = at(key);
  if (!config_.contains(key)) return smallest;
  if (!value.is_number_integer() || value.get<int64_t>() < smallest || value.get<int64_t>() > largest) {
    wrong(key, fmt::format("an integer from {} to {}", smallest, largest));
    return smallest;
  }
  return value.get<int64_t>();
}

double ConfigReader::need_float(const std::string& key) {
  const auto& value = at(key);
  if (!config_.contains(key)) return 1;
  if (value.is_number()) return value.get<double>();
  wrong(key, "a number");
  return 1;
}

int64_t ConfigReader::int_or(const std::string& key, int64_t otherwise) {
  read_.insert(key);
  return has(key) ? need_int(key, 0) : otherwise;
}

double ConfigReader::float_or(const std::string& key, double otherwise) {
  read_.insert(key);
  return has(key) ? need_float(key) : otherwise;
}

bool ConfigReader::bool_or(const std::string& key, bool otherwise) {
  read_.insert(key);
  if (!has(key)) return otherwise;
  if (config_.at(key).is_boolean()) return config_.at(key).get<bool>();
  wrong(key, "true or false");
  return otherwise;
}

std::string ConfigReader::string_or(const std::string& key, const std::string& otherwise) {
  read_.insert(key);
  if (!has(key)) return otherwise;
  if (config_.at(key).is_string()) return config_.at(key).get<std::string>();
  wrong(key, "a text");
  return otherwise;
}

void ConfigReader::ignore(std::initializer_list<const char*> keys) {
  for (const auto* key : keys) read_.insert(key);
}

void ConfigReader::expect_false(std::initializer_list<const char*> keys) {
  for (const auto* key : keys) {
    if (bool_or(key, false)) wrong(key, "false: this form is not supported");
  }
}

void ConfigReader::finish() const {
  std::vector<std::string> unknown;
  for (const auto& [key, value] : config_.items()) {
    if (!read_.contains(key) && !value.is_null()) unknown.push_back(key);
  }
  if (missing_.empty() && wrong_.empty() && unknown.empty()) return;
  std::string text = fmt::format("expected the configuration of a {} model in config.json, got", family_);
  if (!missing_.empty()) text += fmt::format("\n  missing keys: {}", fmt::join(missing_, ", "));
  if (!wrong_.empty()) text += fmt::format("\n  wrong values: {}", fmt::join(wrong_, "; "));
  if (!unknown.empty()) text += fmt::format("\n  unknown keys: {}", fmt::join(unknown, ", "));
  fail("models", "{}\n— this variant is not supported or the file is damaged; an unknown key may change the computation, so it is not ignored", text);
}

}  // namespace graft
