// The adapter as PEFT, vLLM and mistralrs load it: adapter_config.json, adapter_model.safetensors (float32), model card.
// Adapters on experts: "peft" has them on parameters of all experts, as PEFT with transformers 5 and vLLM's classes with fused experts (gpt_oss) load them;
// "peft:per-expert" on a module for each, as vLLM's other classes and transformers 4 do (trainer/adapters/peft_layout.h).
#pragma once
#include <filesystem>
#include <vector>

#include "trainer/adapters/adapter_set.h"
#include "trainer/exports/export_format.h"
#include "trainer/exports/export_result.h"
#include "trainer/exports/export_source.h"

namespace graft {

// UserError for experts apart of a model that has none, or holds them all in one tensor.
std::vector<ExportedTensor> peft_tensors(const AdapterSet& adapters, const AdapterOptions& options, const ExportFormat& format);

// Fills in everything but `format`. The folder is there whole or not at all. adapters null: UserError.
void write_peft(const ExportSource& source, const AdapterSet* adapters, const AdapterOptions& options, const ExportFormat& format,
                const std::filesystem::path& path, ExportResult& result);

}  // namespace graft
