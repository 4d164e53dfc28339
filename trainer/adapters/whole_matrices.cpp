#include "trainer/adapters/whole_matrices.h"

#include <cstring>
#include <fstream>

#include "checkpoints/atomic_file.h"
#include "checkpoints/safetensors_writer.h"
#include "checkpoints/strict_json.h"
#include "checkpoints/tensor_source.h"
#include "kernels/common/error.h"

namespace graft {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

constexpr const char* kKind = "GRAFT_FULL";
constexpr const char* kConfig = "adapter_config.json";
constexpr const char* kMatrices = "adapter_model.safetensors";

Json read_config(const fs::path& folder) {
  std::ifstream stream(folder / kConfig, std::ios::binary);
  return stream ? Json::parse(stream, nullptr, /*allow_exceptions=*/false) : Json();
}

std::string tensor_name(const Adapter& adapter) { return adapter.module_name + ".weight"; }

}  // namespace

bool holds_whole_matrices(const fs::path& folder) {
  const auto config = read_config(folder);
  return config.is_object() && config.value("peft_type", "") == kKind;
}

void save_whole_matrices(const AdapterSet& adapters, const std::string& base_name, const fs::path& folder) {
  std::vector<TensorDeclaration> tensors;
  auto modules = Json::array();
  for (const auto& adapter : adapters.adapters()) {
    tensors.push_back({tensor_name(adapter), TensorType::kF32, {adapter.outputs, adapter.inputs}});
    modules.push_back(adapter.module_name);
  }
  make_private_directory(folder);
  const auto values = adapters.parameters.detach().cpu();
  SafetensorsWriter writer(folder / kMatrices, tensors);
  for (const auto& adapter : adapters.adapters()) {
    writer.write(tensor_name(adapter), std::as_bytes(std::span(values.const_data_ptr<float>() + adapter.offset_b, static_cast<size_t>(adapter.size_b()))));
  }
  writer.finish();
  const Json config = {{"peft_type", kKind}, {"base_model_name_or_path", base_name}, {"target_modules", modules}};
  write_file_atomic(folder / kConfig, config.dump(2) + "\n");
}

AdapterOptions whole_matrices_options(const fs::path& folder) {
  const auto modules = read_config(folder).value("target_modules", Json::array());
  AdapterOptions options;
  options.kind = "full";
  options.targets.clear();
  for (const auto& module : modules) {
    if (!module.is_string()) fail("adapters", "expected target_modules to be a list of names ({}) — export or train it again", (folder / kConfig).string());
    options.targets.push_back(module.get<std::string>());
  }
  return options;
}

std::unique_ptr<AdapterSet> load_whole_matrices(Decoder& decoder, const fs::path& folder) {
  auto adapters = std::make_unique<AdapterSet>(decoder, whole_matrices_options(folder), 0);
  copy_whole_matrices(*adapters, folder);
  return adapters;
}

void copy_whole_matrices(AdapterSet& adapters, const fs::path& folder) {
  const auto source = open_tensors(folder / kMatrices);
  const auto found = source->tensors().size();
  if (found != adapters.adapters().size()) {
    fail("adapters", "expected {} matrices, as adapter.targets says, got {} ({}) — it belongs to another model or recipe", adapters.adapters().size(), found, folder.string());
  }
  for (const auto& adapter : adapters.adapters()) {
    const auto* stored = source->find(tensor_name(adapter));
    if (!stored || stored->type != TensorType::kF32 || stored->shape != std::vector<int64_t>{adapter.outputs, adapter.inputs}) {
      fail("adapters", "expected a float32 matrix [{}, {}] of {}, got {} ({}) — it belongs to another model or recipe", adapter.outputs, adapter.inputs, adapter.module_name,
           stored ? "another" : "none", folder.string());
    }
    std::memcpy(adapters.parameters.data_ptr<float>() + adapter.offset_b, stored->bytes.data(), stored->bytes.size());
  }
}

}  // namespace graft
