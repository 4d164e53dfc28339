#include "trainer/exports/safetensors_export.h"

#include <fmt/format.h>

#include "checkpoints/atomic_file.h"
#include "checkpoints/safetensors_writer.h"
#include "trainer/exports/hub_files.h"
#include "trainer/exports/merged_weights.h"
#include "trainer/exports/model_card.h"
#include "trainer/exports/output_place.h"

namespace graft {

using nlohmann::ordered_json;

std::vector<ExportedTensor> safetensors_tensors(const ExportSource& source, TensorType type) {
  const MergedWeights weights(source, NameColumn::kHub);
  std::vector<ExportedTensor> tensors;
  for (const auto& merged : weights.tensors()) {
    ExportedTensor tensor{weights.name(merged), weights.shape(merged), merged.stored_type(), type, merged.adapted()};
    tensor.copied = MergedWeights::keeps_bytes(merged, type);
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

void write_hub_files(const ExportSource& source, const ExportFormat& format, TensorType type, const ordered_json& quantization, const std::filesystem::path& folder,
                     ExportResult& result) {
  const auto write_json = [&](const char* name, const ordered_json& json) {
    write_file_atomic(folder / name, json.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n");
  };
  auto config = hub_config(source, type);
  if (!quantization.is_null()) config["quantization_config"] = quantization;
  write_json("config.json", config);
  if (const auto generation = hub_generation_config(source); !generation.empty()) write_json("generation_config.json", generation);
  if (!write_tokenizer_files(source, folder)) {
    result.notes.push_back("the base has no tokenizer, so the folder has none: it reads token ids only");
  }
  if (source.chat_template) write_file_atomic(folder / "chat_template.jinja", source.chat_template->source());
  if (!source.kept.empty()) write_file_atomic(folder / "kept.json", source.kept);
  write_file_atomic(folder / "README.md", model_card(source, format, result));
}

void write_safetensors(const ExportSource& source, const ExportFormat& format, const std::filesystem::path& path, ExportResult& result) {
  result.tensors = safetensors_tensors(source, format.safetensors);
  if (format.safetensors != TensorType::kF32) {
    result.notes.push_back(fmt::format("merged weights are rounded to {}: the certificate measures what that costs; safetensors:F32 keeps them",
                                       info(format.safetensors).name));
  }
  StagedFolder folder(path);
  std::vector<TensorDeclaration> declarations;
  for (const auto& tensor : result.tensors) declarations.push_back({tensor.name, tensor.type, tensor.shape});
  SafetensorsDirectoryWriter writer(folder.path(), declarations);
  MergedWeights weights(source, NameColumn::kHub);
  int64_t done = 0;
  for (const auto& merged : weights.tensors()) {
    writer.write(weights.name(merged), weights.bytes(merged, format.safetensors));
    source.report(++done, static_cast<int64_t>(declarations.size()));
  }
  writer.finish();
  write_hub_files(source, format, format.safetensors, nullptr, folder.path(), result);
  folder.commit();
  result.path = path;
  result.files = files_in(path);
  result.serve = {fmt::format("vllm serve {}", shell_word(path))};
}

}  // namespace graft
