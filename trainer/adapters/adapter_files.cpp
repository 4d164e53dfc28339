#include "trainer/adapters/adapter_files.h"

#include <fstream>
#include <set>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "checkpoints/tensor_source.h"
#include "kernels/common/error.h"
#include "kernels/quantized/dequantize.h"

namespace graft {

namespace fs = std::filesystem;

namespace {

const std::string kPrefix = "base_model.model.";

nlohmann::json read_config(const fs::path& folder) {
  std::ifstream in(folder / "adapter_config.json");
  auto config = nlohmann::json::parse(in, nullptr, false);
  if (!config.is_object()) fail("adapters", "expected {} to hold adapter_config.json, a JSON object — name a PEFT folder", folder.string());
  return config;
}

bool is_set(const nlohmann::json& config, const char* key) {   // to something that changes the computation
  if (!config.contains(key)) return false;
  const auto& value = config[key];
  return !(value.is_null() || value == false || value == "none" || ((value.is_array() || value.is_object()) && value.empty()));
}

// Names of the adapted modules, in the file's order.
std::vector<std::string> adapted_modules(const TensorSource& tensors) {
  std::vector<std::string> modules;
  for (const auto& tensor : tensors.tensors()) {
    const auto end = tensor.name.find(".lora_A.weight");
    if (tensor.name.starts_with(kPrefix) && end != std::string::npos) modules.push_back(tensor.name.substr(kPrefix.size(), end - kPrefix.size()));
  }
  return modules;
}

// "q_proj" for every layer, where the configuration says no less and no more; else each module's full name.
std::vector<std::string> targets_of(const nlohmann::json& config, const TensorSource& tensors) {
  const auto modules = adapted_modules(tensors);
  std::vector<std::string> targets;
  const bool listed = config.contains("target_modules") && config["target_modules"].is_array();
  if (!listed || is_set(config, "layers_to_transform") || is_set(config, "exclude_modules")) return modules;
  for (const auto& target : config["target_modules"]) {
    if (!target.is_string() || target.get<std::string>().find('.') != std::string::npos) return modules;
    targets.push_back(target.get<std::string>());
  }
  return targets;
}

}  // namespace

AdapterOptions adapter_options(const fs::path& folder) {
  const auto config = read_config(folder);
  const auto file = (folder / "adapter_config.json").string();
  if (config.value("peft_type", nlohmann::json("LORA")) != "LORA") fail("adapters", "expected peft_type LORA, got {} ({})", config["peft_type"].dump(), file);
  for (const char* key : {"use_dora", "use_qalora", "bias", "lora_bias", "modules_to_save", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "layer_replication",
                          "target_parameters", "trainable_token_indices", "alora_invocation_tokens", "corda_config", "eva_config", "megatron_config"}) {
    if (is_set(config, key)) fail("adapters", "expected a plain LoRA adapter, got {}: {} ({}) — graft does not compute this", key, config[key].dump().substr(0, 100), file);
  }
  for (const char* key : {"r", "lora_alpha"}) {
    if (!config.contains(key) || !config[key].is_number() || !(config[key].get<double>() > 0)) {
      fail("adapters", "expected a positive number for {}, got {} ({})", key, config.contains(key) ? config[key].dump() : "nothing", file);
    }
  }
  AdapterOptions options;
  options.rank = config["r"].get<int64_t>();
  options.alpha = config["lora_alpha"].get<double>();
  options.scaling = is_set(config, "use_rslora") ? "rslora" : "standard";
  options.dropout = config.contains("lora_dropout") && config["lora_dropout"].is_number() ? config["lora_dropout"].get<double>() : 0;
  options.targets = targets_of(config, *open_tensors(folder / "adapter_model.safetensors"));
  return options;
}

std::unique_ptr<AdapterSet> load_adapter(Decoder& decoder, const fs::path& folder) {
  auto options = adapter_options(folder);
  options.targets = adapted_modules(*open_tensors(folder / "adapter_model.safetensors"));   // exactly those that have values
  auto adapters = std::make_unique<AdapterSet>(decoder, options, 0);
  copy_adapter(*adapters, folder);
  return adapters;
}

void copy_adapter(AdapterSet& adapters, const fs::path& folder) {
  const auto path = folder / "adapter_model.safetensors";
  const auto tensors = open_tensors(path);
  std::set<std::string> read;
  auto* data = adapters.parameters.data_ptr<float>();
  for (const auto& adapter : adapters.adapters()) {
    const auto copy = [&](const char* half, int64_t rows, int64_t columns, int64_t offset) {
      const auto name = kPrefix + adapter.module_name + ".lora_" + half + ".weight";
      const auto* tensor = tensors->find(name);
      if (!tensor || tensor->shape != std::vector<int64_t>{rows, columns}) {
        fail("adapters", "expected {} of shape [{}, {}], got {} ({}) — the adapter belongs to another model or recipe", name, rows, columns,
             tensor ? fmt::format("[{}]", fmt::join(tensor->shape, ", ")) : "none", path.string());
      }
      dequantize(tensor->type, tensor->bytes.data(), rows * columns, data + offset);
      read.insert(name);
    };
    copy("A", adapter.rank, adapter.inputs, adapter.offset_a);
    copy("B", adapter.outputs, adapter.rank, adapter.offset_b);
  }
  for (const auto& tensor : tensors->tensors()) {
    if (!read.contains(tensor.name)) {
      fail("adapters", "expected only the adapters of {} modules, got the tensor {} too ({}) — nothing of an adapter is left out; its modules or kind do not fit",
           adapters.adapters().size(), tensor.name, path.string());
    }
  }
}

}  // namespace graft
