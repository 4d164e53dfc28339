// The adapter as PEFT, vLLM and mistralrs load it: adapter_config.json, adapter_model.safetensors (float32), model card.
#pragma once
#include <filesystem>
#include <vector>

#include "trainer/adapters/adapter_set.h"
#include "trainer/exports/export_format.h"
#include "trainer/exports/export_result.h"
#include "trainer/exports/export_source.h"

namespace graft {

std::vector<ExportedTensor> peft_tensors(const AdapterSet& adapters);

// Fills in everything but `format`. The folder is there whole or not at all. adapters null: UserError.
void write_peft(const ExportSource& source, const AdapterSet* adapters, const AdapterOptions& options, const ExportFormat& format,
                const std::filesystem::path& path, ExportResult& result);

}  // namespace graft
