#include <algorithm>
#include <array>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "checkpoints/peft_adapter.h"
#include "checkpoints/quote.h"
#include "checkpoints/safetensors_file.h"
#include "checkpoints/strict_json.h"
#include "kernels/common/error.h"
#include "kernels/quantized/dequantize.h"

namespace graft {
namespace {

using Json = nlohmann::ordered_json;

// Keys that change nothing about what the saved factors mean, whatever they hold. Every other key must be switched off.
constexpr std::array kHarmlessKeys = {"alpha_pattern",
                                      "auto_mapping",
                                      "base_model_name_or_path",
                                      "bias",
                                      "exclude_modules",
                                      "fan_in_fan_out",   // how the base stores the matrix: A and B are the same
                                      "inference_mode",
                                      "layers_pattern",
                                      "layers_to_transform",
                                      "lora_alpha",
                                      "lora_dropout",
                                      "megatron_core",
                                      "peft_type",
                                      "peft_version",
                                      "qalora_group_size",
                                      "r",
                                      "rank_pattern",
                                      "revision",
                                      "target_modules",
                                      "target_parameters",
                                      "task_type",
                                      "use_rslora",
                                      "init_lora_weights",
                                      "loftq_config",
                                      "runtime_config"};

class ConfigReader {
 public:
  explicit ConfigReader(const std::filesystem::path& file)
      : file_(file), config_(read_strict_json(file, "the adapter's config")) {
    if (!config_.is_object()) bad("the config", "a JSON object");
  }

  PeftAdapter read() {
    PeftAdapter adapter;
    if (config_.value("peft_type", Json()) != "LORA") bad("peft_type", "\"LORA\"");
    if (config_.value("bias", Json("none")) != "none") bad("bias", "\"none\", because graft adapts no biases");
    check_initialisation();
    for (const auto& [key, value] : config_.items()) {
      const bool off = value.is_null() || value == false || ((value.is_object() || value.is_array()) && value.empty());
      if (!off && std::ranges::find(kHarmlessKeys, key) == kHarmlessKeys.end()) bad(key, "plain LoRA, with this off");
    }
    adapter.rank = rank(config_.value("r", Json()), "r");
    adapter.alpha = number(config_.value("lora_alpha", Json()), "lora_alpha");
    adapter.dropout = number(config_.value("lora_dropout", Json(0.0)), "lora_dropout");
    const auto rslora = config_.value("use_rslora", Json(false));
    if (!rslora.is_boolean()) bad("use_rslora", "true or false");
    adapter.use_rslora = rslora.get<bool>();
    const Json ranks = patterns("rank_pattern"), alphas = patterns("alpha_pattern");  // named: items() only refers to them
    for (const auto& [key, value] : ranks.items()) adapter.rank_pattern[key] = rank(value, "rank_pattern");
    for (const auto& [key, value] : alphas.items())
      adapter.alpha_pattern[key] = number(value, "alpha_pattern");
    adapter.base_model_name_or_path = text_or_empty("base_model_name_or_path");
    adapter.task_type = text_or_empty("task_type");
    read_targets(adapter);
    return adapter;
  }

 private:
  [[noreturn]] void bad(const std::string& key, std::string_view expected) const {
    const std::string got = config_.is_object() && config_.contains(key) ? config_[key].dump().substr(0, 120) : "none";
    fail("checkpoints", "expected {} as {}, got {} ({}) — graft reads plain LoRA adapters only", key, expected, got,
         file_.string());
  }

  void check_initialisation() const {
    const auto how = config_.value("init_lora_weights", Json(true));
    const std::string name = how.is_string() ? how.get<std::string>() : "";
    for (const char* changes_the_base : {"pissa", "olora", "corda", "loftq", "lora_ga"})
      if (name.starts_with(changes_the_base))
        bad("init_lora_weights",
            "one that leaves the base as it is; save the adapter with path_initial_model_for_weight_conversion");
  }

  int64_t rank(const Json& value, const std::string& key) const {
    if (!value.is_number_integer() || value.get<int64_t>() < 1 || value.get<int64_t>() > 1'000'000) bad(key, "ranks from 1 on");
    return value.get<int64_t>();
  }

  double number(const Json& value, const std::string& key) const {
    if (!value.is_number() || !(value.get<double>() >= 0)) bad(key, "numbers from 0 on");
    return value.get<double>();
  }

  // PEFT takes regular expressions here; graft reads what PEFT and graft write: plain names, and ".*\.name" for what ends in ".name".
  Json patterns(const std::string& key) const {
    auto found = config_.value(key, Json::object());
    if (found.is_null()) return Json::object();
    if (!found.is_object()) bad(key, "an object");
    Json named = Json::object();
    for (const auto& [pattern, value] : found.items()) {
      constexpr std::string_view kAnyBefore = ".*\\.";
      const auto name = pattern.starts_with(kAnyBefore) ? pattern.substr(kAnyBefore.size()) : pattern;
      named[name] = value;
      const auto plain = [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '.' || c == '-'; };
      const std::string_view rest = std::string_view(name).substr(name.starts_with('^') ? 1 : 0);
      if (rest.empty() || !std::ranges::all_of(rest, plain)) bad(key, "module names without regular expressions");
    }
    return named;
  }

  std::string text_or_empty(const std::string& key) const {
    const auto value = config_.value(key, Json());
    if (value.is_null()) return "";
    if (!value.is_string()) bad(key, "a string");
    return value.get<std::string>();
  }

  void read_targets(PeftAdapter& adapter) const {
    if (const auto parameters = config_.value("target_parameters", Json()); !parameters.is_null()) {
      const bool names = parameters.is_array() && std::ranges::all_of(parameters, [](const Json& item) { return item.is_string(); });
      if (!names) bad("target_parameters", "a list of names");
      adapter.target_parameters = parameters.get<std::vector<std::string>>();
    }
    const auto targets = config_.value("target_modules", Json());
    if (targets.is_null()) return;
    adapter.target_is_expression = targets.is_string();
    if (targets.is_string()) {
      adapter.target_modules = {targets.get<std::string>()};
      return;
    }
    const bool strings = targets.is_array() && std::ranges::all_of(targets, [](const Json& item) { return item.is_string(); });
    if (!strings) bad("target_modules", "a list of names or one expression");
    adapter.target_modules = targets.get<std::vector<std::string>>();
  }

  std::filesystem::path file_;
  Json config_;
};

std::vector<float> values_of(const StoredTensor& tensor) {
  if (tensor.type != TensorType::kF32 && tensor.type != TensorType::kF16 && tensor.type != TensorType::kBF16)
    fail("checkpoints", "expected F32, F16 or BF16, got {} (tensor {}, {}) — save the adapter in one of these",
         info(tensor.type).name, quote(tensor.name), tensor.file.string());
  std::vector<float> values(static_cast<size_t>(tensor.num_elements()));
  dequantize(tensor.type, tensor.bytes.data(), tensor.num_elements(), values.data());
  return values;
}

// "base_model.model.<module>.lora_A.weight" to <module>; empty for any other name.
std::string module_of(std::string_view name, std::string_view ending) {
  constexpr std::string_view kPrefix = "base_model.model.";
  if (!name.starts_with(kPrefix) || !name.ends_with(ending) || name.size() <= kPrefix.size() + ending.size()) return "";
  return std::string(name.substr(kPrefix.size(), name.size() - kPrefix.size() - ending.size()));
}

// Factors on a module's own parameters, where no linear layer has that name: the module is one of experts.
bool is_of_experts(const PeftAdapter& adapter, std::string_view module) {
  return !adapter.target_parameters.empty() && (module.ends_with(".experts") || module.ends_with(".experts.base_layer"));
}

void read_factors(const TensorSource& source, PeftAdapter& adapter, const std::filesystem::path& folder) {
  std::map<std::string, const StoredTensor*> a, b;
  std::vector<std::string> problems;
  for (const StoredTensor& tensor : source.tensors()) {
    const std::string module_a = module_of(tensor.name, ".lora_A.weight"), module_b = module_of(tensor.name, ".lora_B.weight");
    if (!module_a.empty())
      a[module_a] = &tensor;
    else if (!module_b.empty())
      b[module_b] = &tensor;
    else
      problems.push_back(fmt::format("{} is no LoRA factor of a linear layer", quote(tensor.name)));
  }
  for (const auto& [module, tensor] : a)
    if (!b.contains(module)) problems.push_back(fmt::format("{} has no lora_B", quote(module)));
  for (const auto& [module, tensor] : b)
    if (!a.contains(module)) problems.push_back(fmt::format("{} has no lora_A", quote(module)));
  for (const auto& [module, tensor] : a) {
    if (!b.contains(module)) continue;
    const auto &shape_a = tensor->shape, &shape_b = b[module]->shape;
    const bool of_experts = is_of_experts(adapter, module) && shape_a.size() == 2;   // how many experts is the model's to say
    const int64_t rank = of_experts ? shape_a[0] : adapter.rank_of(module);
    if (shape_a.size() != 2 || shape_b.size() != 2 || shape_a[0] != rank || shape_b[1] != rank)
      problems.push_back(fmt::format("{} has A [{}] and B [{}] where the config says rank {}", quote(module),
                                     fmt::join(shape_a, ", "), fmt::join(shape_b, ", "), rank));
  }
  if (a.empty() && problems.empty()) problems.push_back("no factor at all");
  if (!problems.empty()) {
    const size_t shown = std::min<size_t>(problems.size(), 20);
    fail("checkpoints",
         "expected A and B of plain LoRA for each module, got {} differences: {}{} ({}) — save the adapter again with PEFT",
         problems.size(), fmt::join(problems.begin(), problems.begin() + static_cast<std::ptrdiff_t>(shown), "; "),
         problems.size() > shown ? "; and more" : "", folder.string());
  }
  for (const auto& [module, tensor] : a)
    adapter.modules[module] = {tensor->shape[0],      tensor->shape[1], b[module]->shape[0], values_of(*tensor),
                               values_of(*b[module]), is_of_experts(adapter, module)};
}

}  // namespace

PeftAdapter read_peft_adapter(const std::filesystem::path& folder) {
  const auto config = folder / "adapter_config.json", weights = folder / "adapter_model.safetensors";
  if (!std::filesystem::exists(config))
    fail("checkpoints", "expected a PEFT adapter, got no adapter_config.json ({}) — give the folder that PEFT or graft saved",
         folder.string());
  PeftAdapter adapter = ConfigReader(config).read();
  // A .bin is never read: open_tensors names its conversion.
  const auto pickle = folder / "adapter_model.bin";
  const auto source = open_tensors(!std::filesystem::exists(weights) && std::filesystem::exists(pickle) ? pickle : weights);
  read_factors(*source, adapter, folder);
  return adapter;
}

}  // namespace graft
