// gpt_oss as it is published: experts in MXFP4, "..._blocks" and "..._scales" of all experts, which vLLM and transformers read; all else bfloat16.
//
// The blocks are those of gguf:MXFP4. Memory: a layer's gates and ups in blocks, twice.
#pragma once
#include <filesystem>
#include <vector>

#include "trainer/exports/export_format.h"
#include "trainer/exports/export_result.h"
#include "trainer/exports/export_source.h"

namespace graft {

// What would be written. UserError for a family whose experts are tensors of their own, and for columns that are no whole blocks of 32.
std::vector<ExportedTensor> mxfp4_tensors(const ExportSource& source, const ExportFormat& format);

// Fills in everything but `format`. The folder is there whole or not at all.
void write_mxfp4(const ExportSource& source, const ExportFormat& format, const std::filesystem::path& path, ExportResult& result);

}  // namespace graft
