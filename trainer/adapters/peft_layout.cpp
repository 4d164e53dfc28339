#include "trainer/adapters/peft_layout.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "kernels/common/error.h"

namespace graft {
namespace {

constexpr std::string_view kInner = ".base_layer", kWeight = ".weight", kExperts = ".experts.";

// "model.layers.0.mlp.experts" of "model.layers.0.mlp.experts.gate_up_proj".
std::string parent(const std::string& module) { return module.substr(0, module.rfind('.')); }

// Of all matrices of a bank, [expert * parts + part]; empty where the file has none of them.
std::vector<const LoraFactors*> factors_of(const PeftAdapter& file, const Linear& bank, const std::filesystem::path& folder) {
  std::vector<const LoraFactors*> factors;
  std::string missing;
  const int64_t parts = bank.parts();
  for (const auto* rule : bank.rules) {
    const auto found = file.modules.find(own_module(*rule));
    factors.push_back(found == file.modules.end() ? nullptr : &found->second);
    if (!factors.back()) missing = own_module(*rule);
  }
  if (std::all_of(factors.begin(), factors.end(), [](const LoraFactors* one) { return one == nullptr; })) return {};
  if (!missing.empty()) fail("adapters", "expected A and B of all experts of {}, got none of {} ({}) — adapt all experts of a layer", bank.module_name, missing, folder.string());
  for (size_t i = 0; i < factors.size(); ++i) {
    const auto &own = *factors[i], &first = *factors[i % static_cast<size_t>(parts)];
    const auto module = own_module(*bank.rules[i]);
    const int64_t rows = bank.rules[i]->shape.at(0);
    if (own.in != bank.inputs() || own.out != rows) {
      fail("adapters", "expected A and B for {} inputs and {} outputs of {}, got {} and {} ({}) — the adapter belongs to another model", bank.inputs(), rows, module, own.in, own.out,
           folder.string());
    }
    const double scale = file.scaling_of(own_module(*bank.rules[0]));
    if (own.rank != first.rank || std::abs(file.scaling_of(module) - scale) > 1e-9 * scale) {
      fail("adapters", "expected one rank and one scale for the experts of {}, got rank {} with scale {:g} and rank {} with scale {:g} ({}) — experts are adapted alike", bank.module_name,
           first.rank, scale, own.rank, file.scaling_of(module), folder.string());
    }
  }
  return factors;
}

// One A for the parts of each expert where they have the same, else one over the other, each with its own columns of B.
LoraFactors stacked(const Linear& bank, const std::vector<const LoraFactors*>& factors) {
  const int64_t experts = bank.num_experts, parts = bank.parts(), columns = bank.inputs(), outputs = bank.outputs();
  bool shares_a = true;
  for (size_t i = 0; i < factors.size(); ++i) shares_a = shares_a && factors[i]->a == factors[i - i % static_cast<size_t>(parts)]->a;
  int64_t rank = 0;
  for (int64_t part = 0; part < (shares_a ? 1 : parts); ++part) rank += factors[static_cast<size_t>(part)]->rank;
  LoraFactors all{experts * rank, columns, outputs, std::vector<float>(static_cast<size_t>(experts * rank * columns)), std::vector<float>(static_cast<size_t>(outputs * rank * experts)), true};
  for (int64_t expert = 0; expert < experts; ++expert) {
    int64_t first_row = 0, first_rank = 0;
    for (int64_t part = 0; part < parts; ++part) {
      const auto& own = *factors[static_cast<size_t>(expert * parts + part)];
      std::copy(own.a.begin(), own.a.end(), all.a.begin() + (expert * rank + first_rank) * columns);
      for (int64_t row = 0; row < own.out; ++row) {
        for (int64_t r = 0; r < own.rank; ++r) all.b[static_cast<size_t>(((first_row + row) * rank + first_rank + r) * experts + expert)] = own.b[static_cast<size_t>(row * own.rank + r)];
      }
      first_row += own.out;
      if (!shares_a) first_rank += own.rank;
    }
  }
  return all;
}

// What modules_of_experts fills in.
bool is_zero(const std::vector<const LoraFactors*>& factors) {
  const auto none = [](const std::vector<float>& values) { return std::all_of(values.begin(), values.end(), [](float value) { return value == 0; }); };
  return std::all_of(factors.begin(), factors.end(), [&](const LoraFactors* one) { return none(one->a) && none(one->b); });
}

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

std::string own_module(const WeightRule& rule) { return rule.hub.ends_with(kWeight) ? rule.hub.substr(0, rule.hub.size() - kWeight.size()) : std::string(); }

std::map<std::string, LoraFactors> modules_of_experts(const AdapterSet& adapters, const float* values, int64_t rank) {
  std::map<std::string, LoraFactors> modules;
  std::set<std::string> adapted;   // layers, "layers.0", whose experts are
  const auto copied = [&](const float* first, int64_t count) { return values ? std::vector<float>(first, first + count) : std::vector<float>(); };
  for (const auto& adapter : adapters.adapters()) {
    const float *a = values ? values + adapter.offset_a : nullptr, *b = values ? values + adapter.offset_b : nullptr;
    if (!adapter.is_bank) {
      modules[own_module(*adapter.rules[0])] = values ? to_peft(adapter, a, b) : LoraFactors{adapter.rank, adapter.inputs, adapter.outputs, {}, {}, false};
      continue;
    }
    const int64_t size_a = adapter.rank * adapter.inputs;
    for (size_t i = 0; i < adapter.rules.size(); ++i) {
      const auto& rule = *adapter.rules[i];
      const int64_t rows = rule.shape.at(0), expert = static_cast<int64_t>(i) / adapter.parts;
      modules[own_module(rule)] = {adapter.rank, adapter.inputs, rows, copied(values ? a + expert * size_a : nullptr, size_a), copied(b, rows * adapter.rank), false};
      if (values) b += rows * adapter.rank;
    }
    adapted.insert(adapter.rules[0]->ours.substr(0, adapter.rules[0]->ours.find(kExperts)));
  }
  for (const auto& weight : adapters.decoder().weights()) {
    const auto& rule = *weight.rule;
    const auto at = rule.ours.find(kExperts);
    if (!is_expert_weight(rule) || !adapted.contains(rule.ours.substr(0, at))) continue;
    const int64_t rows = rule.shape[0], columns = rule.shape[1];
    const auto zeros = [&](int64_t count) { return std::vector<float>(values ? static_cast<size_t>(count) : 0); };
    modules.try_emplace(own_module(rule), LoraFactors{rank, columns, rows, zeros(rank * columns), zeros(rows * rank), false});
  }
  return modules;
}

void stack_experts(PeftAdapter& file, Decoder& decoder, const std::filesystem::path& folder) {
  std::map<std::string, LoraFactors> banks;
  for (const auto* linear : decoder.linears()) {
    const auto own = own_module(*linear->rules.at(0));
    if (!linear->is_bank()) {   // a class of transformers may call it otherwise than checkpoints do
      auto named = own == linear->module_name ? decltype(file.modules)::node_type() : file.modules.extract(own);
      if (!named.empty()) {
        named.key() = linear->module_name;
        file.modules.insert(std::move(named));
      }
      continue;
    }
    const auto factors = factors_of(file, *linear, folder);
    if (factors.empty()) continue;
    if (!is_zero(factors)) {
      auto& bank = banks[linear->module_name] = stacked(*linear, factors);
      const int64_t rank = bank.rank / linear->num_experts;
      const double scale = file.scaling_of(own);
      if (file.rank_of(linear->module_name) != rank) file.rank_pattern[linear->module_name] = rank;
      if (std::abs(file.scaling_of(linear->module_name) - scale) > 1e-9 * scale) file.alpha_pattern[linear->module_name] = scale * (file.use_rslora ? std::sqrt(rank) : static_cast<double>(rank));
    }
    for (const auto* rule : linear->rules) file.modules.erase(own_module(*rule));
  }
  for (auto& [module, factors] : banks) {
    const bool inner = module.ends_with(".gate_up_proj") && banks.contains(parent(module) + ".down_proj");
    file.modules[parent(module) + std::string(inner ? kInner : "")] = std::move(factors);
    file.target_parameters.push_back(module);
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
