#include "trainer/adapters/adapter_files.h"

#include <algorithm>
#include <cmath>

#include <fmt/ranges.h>

#include "checkpoints/peft_adapter.h"
#include "kernels/common/error.h"

namespace graft {

namespace fs = std::filesystem;

namespace {

AdapterOptions options_of(const PeftAdapter& adapter, const fs::path& folder) {
  const auto& first = adapter.modules.begin()->first;
  for (const auto& [module, factors] : adapter.modules) {
    if (adapter.rank_of(module) == adapter.rank_of(first) && adapter.scaling_of(module) == adapter.scaling_of(first)) continue;
    fail("adapters", "expected one rank and one scale for all modules, got rank {} and scale {:g} for {}, {} and {:g} for {} ({}) — rank_pattern and alpha_pattern are not supported",
         adapter.rank_of(first), adapter.scaling_of(first), first, adapter.rank_of(module), adapter.scaling_of(module), module, folder.string());
  }
  AdapterOptions options;
  options.rank = adapter.rank_of(first);
  options.scaling = adapter.use_rslora ? "rslora" : "standard";
  const auto rank = static_cast<double>(options.rank);
  options.alpha = adapter.alpha_pattern.empty() ? adapter.alpha : adapter.scaling_of(first) * (adapter.use_rslora ? std::sqrt(rank) : rank);
  options.dropout = adapter.dropout;
  options.targets.clear();
  for (const auto& [module, factors] : adapter.modules) options.targets.push_back(module);
  return options;
}

void copy_values(AdapterSet& adapters, const PeftAdapter& adapter, const fs::path& folder) {
  auto* data = adapters.parameters.data_ptr<float>();
  for (const auto& ours : adapters.adapters()) {
    const auto found = adapter.modules.find(ours.module_name);
    const auto sizes = found == adapter.modules.end() ? "none" : fmt::format("[{}, {}] and [{}, {}]", found->second.rank, found->second.in, found->second.out, found->second.rank);
    const auto expected = fmt::format("[{}, {}] and [{}, {}]", ours.rank, ours.inputs, ours.outputs, ours.rank);
    if (sizes != expected) {
      fail("adapters", "expected A and B of sizes {} for {}, got {} ({}) — the adapter belongs to another model or recipe", expected, ours.module_name, sizes, folder.string());
    }
    std::copy(found->second.a.begin(), found->second.a.end(), data + ours.offset_a);
    const auto order = stored_row_of_ours(*ours.rule, NameColumn::kHub);
    for (int64_t row = 0; row < ours.outputs; ++row) {
      std::copy_n(found->second.b.data() + (order.empty() ? row : order[row]) * ours.rank, ours.rank, data + ours.offset_b + row * ours.rank);
    }
  }
  if (adapter.modules.size() == adapters.adapters().size()) return;
  std::vector<std::string> surplus;
  for (const auto& [module, factors] : adapter.modules) {
    const bool known = std::any_of(adapters.adapters().begin(), adapters.adapters().end(), [&](const Adapter& ours) { return ours.module_name == module; });
    if (!known && surplus.size() < 12) surplus.push_back(module);
  }
  fail("adapters", "expected the adapters of {} modules, got {} modules: {} too ({}) — nothing of an adapter is left out; set adapter.targets to its modules",
       adapters.adapters().size(), adapter.modules.size(), fmt::join(surplus, ", "), folder.string());
}

}  // namespace

AdapterOptions adapter_options(const fs::path& folder) { return options_of(read_peft_adapter(folder), folder); }

std::unique_ptr<AdapterSet> load_adapter(Decoder& decoder, const fs::path& folder) {
  const auto adapter = read_peft_adapter(folder);
  auto adapters = std::make_unique<AdapterSet>(decoder, options_of(adapter, folder), 0);
  copy_values(*adapters, adapter, folder);
  return adapters;
}

void copy_adapter(AdapterSet& adapters, const fs::path& folder) {
  const auto adapter = read_peft_adapter(folder);
  const double scale = adapter_scale(options_of(adapter, folder));
  if (std::abs(scale - adapters.scale()) > 1e-6 * std::abs(scale)) {
    fail("adapters", "expected an adapter of scale {:g}, as adapter.rank, alpha and scaling say, got {:g} ({}) — take over its rank, alpha and scaling, or it computes something else",
         adapters.scale(), scale, folder.string());
  }
  copy_values(adapters, adapter, folder);
}

}  // namespace graft
