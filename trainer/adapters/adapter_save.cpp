// save_adapter: an AdapterSet to a PEFT folder that PEFT 0.21 and vLLM load.
#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "checkpoints/atomic_file.h"
#include "checkpoints/safetensors_writer.h"
#include "trainer/adapters/adapter_files.h"

namespace graft {
namespace {

using nlohmann::ordered_json;

// Last names where every target is one of them ("q_proj" means it in every layer, here as in PEFT), else each module's full name.
std::vector<std::string> target_modules(const AdapterSet& adapters, const AdapterOptions& options) {
  const bool by_last_name = std::all_of(options.targets.begin(), options.targets.end(),
                                        [](const std::string& target) { return target.find_first_of(".*?[") == std::string::npos; });
  std::vector<std::string> names;
  for (const auto& adapter : adapters.adapters()) {
    auto name = by_last_name ? adapter.module_name.substr(adapter.module_name.rfind('.') + 1) : adapter.module_name;
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(std::move(name));
  }
  return names;
}

ordered_json peft_config(const AdapterSet& adapters, const AdapterOptions& options, const std::string& base_name) {
  const bool whole = options.alpha == std::floor(options.alpha) && std::abs(options.alpha) < 1e15;
  ordered_json config;
  config["peft_type"] = "LORA";
  config["task_type"] = "CAUSAL_LM";
  config["base_model_name_or_path"] = base_name;
  config["r"] = options.rank;
  config["lora_alpha"] = whole ? ordered_json(static_cast<int64_t>(options.alpha)) : ordered_json(options.alpha);
  config["use_rslora"] = options.scaling == "rslora";
  config["lora_dropout"] = options.dropout;
  config["target_modules"] = target_modules(adapters, options);
  config["bias"] = "none";
  config["fan_in_fan_out"] = false;
  config["inference_mode"] = true;
  config["init_lora_weights"] = true;   // vLLM refuses others
  config["modules_to_save"] = nullptr;
  config["use_dora"] = false;
  config["lora_bias"] = false;
  config["rank_pattern"] = ordered_json::object();
  config["alpha_pattern"] = ordered_json::object();
  return config;
}

}  // namespace

void save_adapter(const AdapterSet& adapters, const AdapterOptions& options, const std::string& base_name, const std::filesystem::path& folder) {
  make_private_directory(folder);
  std::vector<TensorDeclaration> declarations;
  const auto name = [](const Adapter& adapter, const char* half) { return "base_model.model." + adapter.module_name + ".lora_" + half + ".weight"; };
  for (const auto& adapter : adapters.adapters()) {
    declarations.push_back({name(adapter, "A"), TensorType::kF32, {adapter.rank, adapter.inputs}});
    declarations.push_back({name(adapter, "B"), TensorType::kF32, {adapter.outputs, adapter.rank}});
  }
  SafetensorsWriter writer(folder / "adapter_model.safetensors", declarations);
  const auto values = adapters.parameters.detach().cpu();
  const float* data = values.const_data_ptr<float>();
  for (const auto& adapter : adapters.adapters()) {
    writer.write(name(adapter, "A"), std::as_bytes(std::span(data + adapter.offset_a, static_cast<size_t>(adapter.rank * adapter.inputs))));
    writer.write(name(adapter, "B"), std::as_bytes(std::span(data + adapter.offset_b, static_cast<size_t>(adapter.outputs * adapter.rank))));
  }
  writer.finish();
  write_file_atomic(folder / "adapter_config.json", peft_config(adapters, options, base_name).dump(2) + "\n");
}

}  // namespace graft
