#include "trainer/adapters/peft_layout.h"

#include <algorithm>

namespace graft {
namespace {

constexpr std::string_view kInner = ".base_layer";

// "model.layers.0.mlp.experts" of "model.layers.0.mlp.experts.gate_up_proj".
std::string parent(const std::string& module) { return module.substr(0, module.rfind('.')); }

// Where a row of a bank's B lies in PEFT's file: with gate and up in turn where the hub holds them so.
int64_t stored_row(const Adapter& adapter, int64_t row) {
  const auto& form = adapter.rules[0]->hub_form;
  const int64_t size = adapter.outputs / form.interleaved;
  return form.interleaved == 1 ? row : row % size * form.interleaved + row / size;
}

}  // namespace

std::string peft_module(const AdapterSet& adapters, const Adapter& adapter) {
  if (!adapter.is_bank) return adapter.module_name;
  const auto module = parent(adapter.module_name);
  if (adapter.module_name.ends_with(".down_proj")) return module;   // the outer one, or alone
  const auto& all = adapters.adapters();
  const bool has_outer = std::any_of(all.begin(), all.end(), [&](const Adapter& other) {
    return other.is_bank && other.module_name != adapter.module_name && parent(other.module_name) == module;
  });
  return has_outer ? module + std::string(kInner) : module;
}

LoraFactors to_peft(const Adapter& adapter, const float* a, const float* b) {
  const int64_t experts = adapter.num_experts, rank = adapter.rank, outputs = adapter.outputs;
  LoraFactors factors{experts * rank, adapter.inputs, outputs, {a, a + adapter.size_a()}, {b, b + adapter.size_b()}, adapter.is_bank};
  if (adapter.is_bank) {
    for (int64_t expert = 0; expert < experts; ++expert) {
      for (int64_t row = 0; row < outputs; ++row) {
        for (int64_t r = 0; r < rank; ++r) factors.b[(stored_row(adapter, row) * rank + r) * experts + expert] = b[(expert * outputs + row) * rank + r];
      }
    }
    return factors;
  }
  const auto rows = stored_row_of_ours(adapter.rules, NameColumn::kHub), columns = stored_column_of_ours(*adapter.rules[0], NameColumn::kHub);
  for (size_t row = 0; row < rows.size(); ++row) std::copy_n(b + static_cast<int64_t>(row) * rank, rank, factors.b.data() + rows[row] * rank);
  for (int64_t r = 0; !columns.empty() && r < rank; ++r) {
    for (size_t c = 0; c < columns.size(); ++c) factors.a[static_cast<size_t>(r * adapter.inputs + columns[c])] = a[r * adapter.inputs + static_cast<int64_t>(c)];
  }
  return factors;
}

const LoraFactors* find_in_peft(const PeftAdapter& file, const Adapter& adapter, std::string* module) {
  std::vector<std::string> names = {adapter.module_name};
  if (adapter.is_bank) names = {parent(adapter.module_name), parent(adapter.module_name) + std::string(kInner)};
  for (const auto& name : names) {
    const auto found = file.modules.find(name);
    if (found == file.modules.end()) continue;
    const auto& factors = found->second;
    if (factors.rank != adapter.num_experts * adapter.rank || factors.in != adapter.inputs || factors.out != adapter.outputs) continue;
    *module = name;
    return &factors;
  }
  return nullptr;
}

void from_peft(const Adapter& adapter, const LoraFactors& factors, float* a, float* b) {
  const int64_t experts = adapter.num_experts, rank = adapter.rank, outputs = adapter.outputs;
  std::copy(factors.a.begin(), factors.a.end(), a);
  if (adapter.is_bank) {
    for (int64_t expert = 0; expert < experts; ++expert) {
      for (int64_t row = 0; row < outputs; ++row) {
        for (int64_t r = 0; r < rank; ++r) b[(expert * outputs + row) * rank + r] = factors.b[(stored_row(adapter, row) * rank + r) * experts + expert];
      }
    }
    return;
  }
  const auto rows = stored_row_of_ours(adapter.rules, NameColumn::kHub), columns = stored_column_of_ours(*adapter.rules[0], NameColumn::kHub);
  for (int64_t row = 0; row < outputs; ++row) std::copy_n(factors.b.data() + (rows.empty() ? row : rows[static_cast<size_t>(row)]) * rank, rank, b + row * rank);
  for (int64_t r = 0; !columns.empty() && r < rank; ++r) {
    for (size_t c = 0; c < columns.size(); ++c) a[r * adapter.inputs + static_cast<int64_t>(c)] = factors.a[static_cast<size_t>(r * adapter.inputs + columns[c])];
  }
}

std::vector<std::string> modules_of(const PeftAdapter& file) {
  std::vector<std::string> modules;
  for (const auto& [module, factors] : file.modules) {
    if (!factors.of_experts) {
      modules.push_back(module);
      continue;
    }
    if (module.ends_with(kInner)) continue;   // counted with its outer one
    const auto has = [&](const char* name) {
      return std::any_of(file.target_parameters.begin(), file.target_parameters.end(), [&](const std::string& target) { return target.ends_with(name); });
    };
    const bool both = file.modules.contains(module + std::string(kInner));
    if (both || has("gate_up_proj")) modules.push_back(module + ".gate_up_proj");
    if (both || !has("gate_up_proj")) modules.push_back(module + ".down_proj");
  }
  return modules;
}

}  // namespace graft
