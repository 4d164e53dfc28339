// The merged model as a directory in Hugging Face layout, which transformers, vLLM and mistralrs load: weights (sharded above 5 GB),
// configuration, tokenizer, chat template, generation defaults, model card.
#pragma once
#include <filesystem>
#include <vector>

#include <nlohmann/json.hpp>

#include "trainer/exports/export_format.h"
#include "trainer/exports/export_result.h"
#include "trainer/exports/export_source.h"

namespace graft {

std::vector<ExportedTensor> safetensors_tensors(const ExportSource& source, TensorType type);

// The files beside the weights into `folder`; what was not written is noted. `quantization`: of config.json, or null.
void write_hub_files(const ExportSource& source, const ExportFormat& format, TensorType type, const nlohmann::ordered_json& quantization, const std::filesystem::path& folder,
                     ExportResult& result);

// Fills in everything but `format`. The folder is there whole or not at all.
void write_safetensors(const ExportSource& source, const ExportFormat& format, const std::filesystem::path& path, ExportResult& result);

}  // namespace graft
