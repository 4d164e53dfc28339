#include "trainer/adapters/gguf_adapter.h"

#include <map>

#include "checkpoints/gguf_file.h"
#include "kernels/common/error.h"
#include "kernels/quantized/dequantize.h"
#include "trainer/models/families/family.h"

namespace graft {

std::unique_ptr<AdapterSet> load_gguf_adapter(Decoder& decoder, const std::filesystem::path& path) {
  const GgufFile file(path);
  const auto name = path.filename().string();
  const auto architecture = family_of_model_type(decoder.spec().family).gguf_architecture;
  if (file.get_string("general.type").value_or("") != "adapter" || file.get_string("adapter.type").value_or("") != "lora" ||
      file.get_string("general.architecture").value_or("") != architecture) {
    fail("adapters", "expected a GGUF LoRA for architecture {}, got another file ({})", architecture, name);
  }
  std::map<std::string, const WeightRule*> rule_of_tensor;
  for (const auto& rule : decoder.weight_map().rules) rule_of_tensor[rule.gguf] = &rule;
  AdapterOptions options;
  options.targets.clear();
  options.rank = 0;
  std::map<std::string, const WeightRule*> rule_of_module;
  for (const auto& tensor : file.tensors()) {
    const bool is_a = tensor.name.ends_with(".lora_a");
    if (!is_a && !tensor.name.ends_with(".lora_b")) fail("adapters", "expected only lora_a and lora_b tensors, got {} ({})", tensor.name, name);
    const auto rule = rule_of_tensor.find(tensor.name.substr(0, tensor.name.size() - 7));
    if (rule == rule_of_tensor.end()) fail("adapters", "expected tensors of the base model, got {} ({})", tensor.name, name);
    if (!is_a) continue;
    const auto rank = tensor.shape.at(0);
    if (options.rank != 0 && options.rank != rank) fail("adapters", "expected one rank, got {} and {} ({})", options.rank, rank, name);
    options.rank = rank;
    const auto module = rule->second->hub.substr(0, rule->second->hub.size() - 7);
    options.targets.push_back(module);
    rule_of_module[module] = rule->second;
  }
  if (options.rank == 0) fail("adapters", "expected at least one lora_a tensor, got none ({})", name);
  const double alpha = file.get_float("adapter.lora.alpha").value_or(0);
  options.alpha = alpha == 0 ? static_cast<double>(options.rank) : alpha;
  auto adapters = std::make_unique<AdapterSet>(decoder, options, 0);
  auto* values = adapters->parameters.data_ptr<float>();
  for (const auto& adapter : adapters->adapters()) {
    const auto& rule = *rule_of_module.at(adapter.module_name);
    const auto *a = file.find(rule.gguf + ".lora_a"), *b = file.find(rule.gguf + ".lora_b");
    if (!b || a->shape != std::vector<int64_t>{adapter.rank, adapter.inputs} || b->shape != std::vector<int64_t>{adapter.outputs, adapter.rank}) {
      fail("adapters", "expected {}.lora_a [{}, {}] and .lora_b [{}, {}], got others ({})", rule.gguf, adapter.rank, adapter.inputs, adapter.outputs,
           adapter.rank, name);
    }
    dequantize(a->type, a->bytes.data(), a->num_elements(), values + adapter.offset_a);
    std::vector<float> stored(static_cast<size_t>(b->num_elements()));
    dequantize(b->type, b->bytes.data(), b->num_elements(), stored.data());
    const auto order = stored_row_of_ours(rule, NameColumn::kGguf);
    for (int64_t row = 0; row < adapter.outputs; ++row) {
      const auto* source = stored.data() + (order.empty() ? row : order[row]) * adapter.rank;
      std::copy(source, source + adapter.rank, values + adapter.offset_b + row * adapter.rank);
    }
  }
  return adapters;
}

}  // namespace graft
