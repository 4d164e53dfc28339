#include "checkpoints/peft_adapter.h"

#include <cmath>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "checkpoints/atomic_file.h"
#include "checkpoints/quote.h"
#include "checkpoints/safetensors_writer.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

// The pattern for `module`, or the default: PEFT takes the first key that equals the name or its end behind a dot.
template <typename Value>
Value value_for(const std::map<std::string, Value>& patterns, std::string_view module, Value otherwise) {
  for (const auto& [key, value] : patterns) {
    const bool whole_name = key.starts_with('^');
    const std::string_view name = std::string_view(key).substr(whole_name ? 1 : 0);
    if (module == name) return value;
    if (!whole_name && module.ends_with(name) && module[module.size() - name.size() - 1] == '.') return value;
  }
  return otherwise;
}

nlohmann::ordered_json number(double value) {
  if (value == std::floor(value) && std::fabs(value) < 1e15) return static_cast<int64_t>(value);
  return value;
}

nlohmann::ordered_json config_of(const PeftAdapter& adapter) {
  nlohmann::ordered_json alpha_pattern = nlohmann::ordered_json::object(), rank_pattern = nlohmann::ordered_json::object();
  for (const auto& [key, value] : adapter.alpha_pattern) alpha_pattern[key] = number(value);
  for (const auto& [key, value] : adapter.rank_pattern) rank_pattern[key] = value;
  nlohmann::ordered_json targets = adapter.target_modules;
  if (adapter.target_is_expression) targets = adapter.target_modules.at(0);
  nlohmann::ordered_json config = {{"alpha_pattern", alpha_pattern},
          {"auto_mapping", nullptr},
          {"base_model_name_or_path", adapter.base_model_name_or_path},
          {"bias", "none"},
          {"fan_in_fan_out", false},
          {"inference_mode", true},
          {"init_lora_weights", true},
          {"layers_pattern", nullptr},
          {"layers_to_transform", nullptr},
          {"lora_alpha", number(adapter.alpha)},
          {"lora_dropout", adapter.dropout},
          {"modules_to_save", nullptr},
          {"peft_type", "LORA"},
          {"r", adapter.rank},
          {"rank_pattern", rank_pattern},
          {"revision", nullptr},
          {"target_modules", targets},
          {"task_type", adapter.task_type},
          {"use_dora", false},
          {"use_rslora", adapter.use_rslora}};
  if (!adapter.target_parameters.empty()) config["target_parameters"] = adapter.target_parameters;
  return config;
}

void check_factors(const std::string& module, const LoraFactors& factors, int64_t expected_rank,
                   const std::filesystem::path& folder) {
  const bool sizes_fit = factors.rank > 0 && factors.in > 0 && factors.out > 0 &&
                         static_cast<int64_t>(factors.a.size()) == factors.rank * factors.in &&
                         static_cast<int64_t>(factors.b.size()) == factors.out * factors.rank;
  if (!sizes_fit || (!factors.of_experts && factors.rank != expected_rank))
    fail("checkpoints",
         "expected factors of rank {}, got rank {} with {} and {} values (module {}, {}) — set rank and rank_pattern to the "
         "factors' own",
         expected_rank, factors.rank, factors.a.size(), factors.b.size(), quote(module), folder.string());
}

}  // namespace

int64_t PeftAdapter::rank_of(std::string_view module) const { return value_for(rank_pattern, module, rank); }

double PeftAdapter::scaling_of(std::string_view module) const {
  const auto module_rank = static_cast<double>(rank_of(module));
  const double module_alpha = value_for(alpha_pattern, module, alpha);
  return module_alpha / (use_rslora ? std::sqrt(module_rank) : module_rank);
}

void write_peft_adapter(const std::filesystem::path& folder, const PeftAdapter& adapter) {
  std::vector<TensorDeclaration> tensors;
  for (const auto& [module, factors] : adapter.modules) {
    check_factors(module, factors, adapter.rank_of(module), folder);
    const std::string prefix = "base_model.model." + module;
    tensors.push_back({prefix + ".lora_A.weight", TensorType::kF32, {factors.rank, factors.in}});
    tensors.push_back({prefix + ".lora_B.weight", TensorType::kF32, {factors.out, factors.rank}});
  }
  make_private_directory(folder);
  SafetensorsWriter writer(folder / "adapter_model.safetensors", tensors);
  for (const auto& [module, factors] : adapter.modules) {
    const std::string prefix = "base_model.model." + module;
    writer.write(prefix + ".lora_A.weight", std::as_bytes(std::span(factors.a)));
    writer.write(prefix + ".lora_B.weight", std::as_bytes(std::span(factors.b)));
  }
  writer.finish();
  write_file_atomic(folder / "adapter_config.json", config_of(adapter).dump(2) + "\n");
}

}  // namespace graft
