// save_adapter: an AdapterSet to a PEFT folder.
#include <algorithm>
#include <cmath>
#include <set>

#include "checkpoints/peft_adapter.h"
#include "trainer/adapters/adapter_files.h"
#include "trainer/adapters/peft_layout.h"
#include "trainer/adapters/whole_matrices.h"

namespace graft {
namespace {

// Last names where every target is one of them ("q_proj" means it in every layer, here as in PEFT), else each module's full name. Experts are parameters. In a
// model that has some PEFT reads gate_proj, up_proj and down_proj among the modules as experts, so that other layers of these names are parameters too.
void set_targets(const AdapterSet& adapters, const AdapterOptions& options, PeftAdapter& peft) {
  const bool by_last_name = std::all_of(options.targets.begin(), options.targets.end(),
                                        [](const std::string& target) { return target.find_first_of(".*?[") == std::string::npos; });
  const bool has_experts = adapters.decoder().spec().experts() != nullptr;
  const auto add_once = [](std::vector<std::string>& names, std::string name) {
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(std::move(name));
  };
  for (const auto& adapter : adapters.adapters()) {
    const auto last = adapter.module_name.substr(adapter.module_name.rfind('.') + 1);
    if (adapter.is_bank) add_once(peft.target_parameters, adapter.module_name);
    else if (has_experts && (last == "gate_proj" || last == "up_proj" || last == "down_proj")) add_once(peft.target_parameters, adapter.module_name + ".weight");
    else add_once(peft.target_modules, by_last_name ? last : adapter.module_name);
  }
}

// The same where experts are modules: last names where no module that is not adapted has one of them.
void set_module_targets(const AdapterSet& adapters, PeftAdapter& peft) {
  const auto last_name = [](const std::string& module) { return module.substr(module.rfind('.') + 1); };
  std::set<std::string> names, others;
  for (const auto& [module, factors] : peft.modules) names.insert(last_name(module));
  for (const auto& weight : adapters.decoder().weights()) {
    const auto module = own_module(*weight.rule);
    if (!peft.modules.contains(module)) others.insert(last_name(module));
  }
  const bool by_last_name = std::none_of(names.begin(), names.end(), [&](const std::string& name) { return others.contains(name); });
  if (by_last_name) {
    peft.target_modules.assign(names.begin(), names.end());
    return;
  }
  for (const auto& [module, factors] : peft.modules) peft.target_modules.push_back(module);
}

// Modules with a rank of their own have the same scale: alpha grows with the rank.
void set_rank(const AdapterOptions& options, const std::string& module, int64_t rank, PeftAdapter& peft) {
  const double factor = static_cast<double>(rank) / static_cast<double>(options.rank);
  peft.rank_pattern[module] = rank;
  peft.alpha_pattern[module] = options.alpha * (peft.use_rslora ? std::sqrt(factor) : factor);
}

}  // namespace

void save_adapter(const AdapterSet& adapters, const AdapterOptions& options, const std::string& base_name, const std::filesystem::path& folder, bool experts_apart) {
  if (options.kind == "full") return save_whole_matrices(adapters, base_name, folder);
  PeftAdapter adapter;
  adapter.rank = options.rank;
  adapter.alpha = options.alpha;
  adapter.use_rslora = options.scaling == "rslora";
  adapter.dropout = options.dropout;
  adapter.base_model_name_or_path = base_name;
  const auto values = adapters.parameters.detach().cpu();
  const float* data = values.const_data_ptr<float>();
  if (experts_apart) {
    adapter.modules = modules_of_experts(adapters, data, options.rank);
    set_module_targets(adapters, adapter);
    for (const auto& [module, factors] : adapter.modules) {
      if (factors.rank != options.rank) set_rank(options, module, factors.rank, adapter);
    }
  } else {
    set_targets(adapters, options, adapter);
    for (const auto& [module, rank] : options.ranks) set_rank(options, module, rank, adapter);
    for (const auto& ours : adapters.adapters()) adapter.modules[peft_module(adapters, ours)] = to_peft(ours, data + ours.offset_a, data + ours.offset_b);
  }
  write_peft_adapter(folder, adapter);
}

}  // namespace graft
