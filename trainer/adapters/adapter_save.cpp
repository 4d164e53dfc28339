// save_adapter: an AdapterSet to a PEFT folder.
#include <algorithm>

#include "checkpoints/peft_adapter.h"
#include "trainer/adapters/adapter_files.h"

namespace graft {
namespace {

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

}  // namespace

void save_adapter(const AdapterSet& adapters, const AdapterOptions& options, const std::string& base_name, const std::filesystem::path& folder) {
  PeftAdapter adapter;
  adapter.rank = options.rank;
  adapter.alpha = options.alpha;
  adapter.use_rslora = options.scaling == "rslora";
  adapter.dropout = options.dropout;
  adapter.target_modules = target_modules(adapters, options);
  adapter.base_model_name_or_path = base_name;
  const auto values = adapters.parameters.detach().cpu();
  const float* data = values.const_data_ptr<float>();
  for (const auto& ours : adapters.adapters()) {
    const float *a = data + ours.offset_a, *b = data + ours.offset_b;
    auto& module = adapter.modules[ours.module_name];
    module = {ours.rank, ours.inputs, ours.outputs, {a, a + ours.rank * ours.inputs}, {b, b + ours.outputs * ours.rank}};
    const auto order = our_row_of_stored(*ours.rule, NameColumn::kHub);
    for (size_t row = 0; row < order.size(); ++row) std::copy_n(b + order[row] * ours.rank, ours.rank, module.b.data() + static_cast<int64_t>(row) * ours.rank);
  }
  write_peft_adapter(folder, adapter);
}

}  // namespace graft
