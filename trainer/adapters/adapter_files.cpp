#include "trainer/adapters/adapter_files.h"

#include <algorithm>
#include <cmath>
#include <set>

#include <fmt/ranges.h>

#include "checkpoints/peft_adapter.h"
#include "kernels/common/error.h"
#include "trainer/adapters/peft_layout.h"
#include "trainer/adapters/whole_matrices.h"

namespace graft {

namespace fs = std::filesystem;

namespace {

PeftAdapter read_stacked(Decoder& decoder, const fs::path& folder) {
  auto adapter = read_peft_adapter(folder);
  stack_experts(adapter, decoder, folder);
  return adapter;
}

AdapterOptions options_of(const PeftAdapter& adapter, const fs::path& folder) {
  const auto modules = modules_of(adapter);
  // The rank of most; PEFT doubles that of experts' gate_up_proj where its old names gate_proj and up_proj were targeted.
  const auto is_plain = [&](const std::string& module) { return adapter.rank_of(module) == adapter.rank; };
  const auto plain = std::find_if(modules.begin(), modules.end(), is_plain);
  const auto& first = plain == modules.end() ? modules.front() : *plain;
  AdapterOptions options;
  options.rank = adapter.rank_of(first);
  for (const auto& module : modules) {
    if (std::abs(adapter.scaling_of(module) - adapter.scaling_of(first)) > 1e-9 * adapter.scaling_of(first)) {
      fail("adapters", "expected one scale for all modules, got {:g} for {} and {:g} for {} ({}) — alpha_pattern with other scales is not supported",
           adapter.scaling_of(first), first, adapter.scaling_of(module), module, folder.string());
    }
    if (adapter.rank_of(module) != options.rank) options.ranks[module] = adapter.rank_of(module);
  }
  options.scaling = adapter.use_rslora ? "rslora" : "standard";
  const auto rank = static_cast<double>(options.rank);
  options.alpha = options.rank == adapter.rank && adapter.alpha_pattern.empty() ? adapter.alpha : adapter.scaling_of(first) * (adapter.use_rslora ? std::sqrt(rank) : rank);
  options.dropout = adapter.dropout;
  options.targets = modules;
  return options;
}

void copy_values(AdapterSet& adapters, const PeftAdapter& adapter, const fs::path& folder) {
  auto* data = adapters.parameters.data_ptr<float>();
  std::set<std::string> used;
  for (const auto& ours : adapters.adapters()) {
    std::string module;
    const auto* factors = find_in_peft(adapter, ours, &module);
    if (!factors) {
      const auto named = adapter.modules.find(peft_module(adapters, ours));
      const auto got = named == adapter.modules.end() ? "none" : fmt::format("[{}, {}] and [{}, {}]", named->second.rank, named->second.in, named->second.out, named->second.rank);
      const int64_t rank = ours.num_experts * ours.rank;
      fail("adapters", "expected A and B of sizes [{}, {}] and [{}, {}] for {}, got {} ({}) — the adapter belongs to another model or recipe", rank, ours.inputs, ours.outputs,
           rank, ours.module_name, got, folder.string());
    }
    used.insert(module);
    from_peft(ours, *factors, data + ours.offset_a, data + ours.offset_b);
  }
  std::vector<std::string> surplus;
  for (const auto& [module, factors] : adapter.modules) {
    if (!used.contains(module) && surplus.size() < 12) surplus.push_back(module);
  }
  if (surplus.empty()) return;
  fail("adapters", "expected the adapters of {} modules, got {} modules: {} too ({}) — nothing of an adapter is left out; set adapter.targets to its modules",
       adapters.adapters().size(), adapter.modules.size(), fmt::join(surplus, ", "), folder.string());
}

}  // namespace

AdapterOptions adapter_options(Decoder& decoder, const fs::path& folder) {
  return holds_whole_matrices(folder) ? whole_matrices_options(folder) : options_of(read_stacked(decoder, folder), folder);
}

std::unique_ptr<AdapterSet> load_adapter(Decoder& decoder, const fs::path& folder) {
  if (holds_whole_matrices(folder)) return load_whole_matrices(decoder, folder);
  const auto adapter = read_stacked(decoder, folder);
  auto adapters = std::make_unique<AdapterSet>(decoder, options_of(adapter, folder), 0);
  copy_values(*adapters, adapter, folder);
  return adapters;
}

void copy_adapter(AdapterSet& adapters, const fs::path& folder) {
  const bool is_whole = !adapters.adapters().empty() && adapters.adapters().front().is_whole;
  if (is_whole != holds_whole_matrices(folder)) {
    fail("adapters", "expected {} as adapter.kind says, got {} ({}) — set adapter.kind as it was when that was trained", is_whole ? "whole matrices" : "a LoRA adapter",
         is_whole ? "an adapter" : "whole matrices", folder.string());
  }
  if (is_whole) return copy_whole_matrices(adapters, folder);
  const auto adapter = read_stacked(adapters.decoder(), folder);
  const double scale = adapter_scale(options_of(adapter, folder));
  if (std::abs(scale - adapters.scale()) > 1e-6 * std::abs(scale)) {
    fail("adapters", "expected an adapter of scale {:g}, as adapter.rank, alpha and scaling say, got {:g} ({}) — take over its rank, alpha and scaling, or it computes something else",
         adapters.scale(), scale, folder.string());
  }
  copy_values(adapters, adapter, folder);
}

}  // namespace graft
