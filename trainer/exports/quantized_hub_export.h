// The merged model as a directory in Hugging Face layout with quantised linear layers, which vLLM and transformers load: compressed-tensors, GPTQ, AWQ, NF4.
// Experts are matrices of their own, by the names of checkpoints before they were stacked ("...experts.3.gate_proj.weight_packed"), as llm-compressor writes them and
// engines read them, also from a base that has them stacked.
//
// Quantised are the linears of the layers, as those engines expect: not embedding, head, norms, routers, convolutions or indexers, which are bfloat16 (float16 in
// GPTQ and AWQ). A linear that does not fit the form stays plain, named in the configuration and in the notes. Memory: one matrix in float32, its blocks and tensors.
#pragma once
#include <filesystem>
#include <vector>

#include "trainer/exports/export_format.h"
#include "trainer/exports/export_result.h"
#include "trainer/exports/export_source.h"

namespace graft {

// What would be written, in the blocks that a reader gets. UserError when no linear fits the form, or a group that was asked for divides no columns; for experts whose
// family has no such names (gpt_oss), and in NF4, which no engine reads.
std::vector<ExportedTensor> quantized_hub_tensors(const ExportSource& source, const ExportFormat& format);

// Fills in everything but `format`. The folder is there whole or not at all.
void write_quantized_hub(const ExportSource& source, const ExportFormat& format, const std::filesystem::path& path, ExportResult& result);

}  // namespace graft
