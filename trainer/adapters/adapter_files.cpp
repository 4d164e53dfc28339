#include "trainer/adapters/adapter_files.h"

#include <fstream>

#include <nlohmann/json.hpp>

#include "checkpoints/tensor_source.h"
#include "kernels/common/error.h"
#include "kernels/quantized/dequantize.h"

namespace graft {

namespace fs = std::filesystem;

std::unique_ptr<AdapterSet> load_adapter(Decoder& decoder, const fs::path& folder) {
  std::ifstream in(folder / "adapter_config.json");
  const auto config = nlohmann::json::parse(in, nullptr, false);
  if (config.is_discarded()) fail("adapters", "expected {} to hold adapter_config.json — name a PEFT folder", folder.string());
  AdapterOptions options;
  options.rank = config.at("r").get<int64_t>();
  options.alpha = config.at("lora_alpha").get<double>();
  options.scaling = config.value("use_rslora", false) ? "rslora" : "standard";
  auto tensors = open_tensors(folder / "adapter_model.safetensors");
  options.targets.clear();
  for (const auto& tensor : tensors->tensors()) {
    auto name = tensor.name;
    const auto end = name.find(".lora_A.weight");
    if (name.starts_with("base_model.model.") && end != std::string::npos) options.targets.push_back(name.substr(17, end - 17));
  }
  auto adapters = std::make_unique<AdapterSet>(decoder, options, 0);
  copy_adapter(*adapters, folder);
  return adapters;
}

void copy_adapter(AdapterSet& adapters, const fs::path& folder) {
  auto tensors = open_tensors(folder / "adapter_model.safetensors");
  auto* data = adapters.parameters.data_ptr<float>();
  for (const auto& adapter : adapters.adapters()) {
    const auto read = [&](const char* half, int64_t offset, int64_t size) {
      const auto name = "base_model.model." + adapter.module_name + ".lora_" + half + ".weight";
      const auto* tensor = tensors->find(name);
      if (!tensor || tensor->num_elements() != size) fail("adapters", "expected {} with {} values in {}", name, size, folder.string());
      dequantize(tensor->type, tensor->bytes.data(), size, data + offset);
    };
    read("A", adapter.offset_a, adapter.rank * adapter.inputs);
    read("B", adapter.offset_b, adapter.rank * adapter.outputs);
  }
}

}  // namespace graft
