// The merged model as a directory in Hugging Face layout, which transformers, vLLM and mistralrs load: weights (sharded above 5 GB),
// configuration, tokenizer, chat template, generation defaults, model card.
#pragma once
#include <filesystem>
#include <vector>

#include "trainer/exports/export_format.h"
#include "trainer/exports/export_result.h"
#include "trainer/exports/export_source.h"

namespace graft {

std::vector<ExportedTensor> safetensors_tensors(const ExportSource& source, TensorType type);

// Fills in everything but `format`. The folder is there whole or not at all.
void write_safetensors(const ExportSource& source, const ExportFormat& format, const std::filesystem::path& path, ExportResult& result);

}  // namespace graft
