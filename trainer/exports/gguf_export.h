// The merged model as one GGUF file with tokenizer, chat template and metadata, as llama.cpp reads it.
//
// Types follow llama.cpp's policy for the form (gguf_type_for), vectors are F32. A GGUF base keeps its own metadata, but for the file type,
// the facts and the chat template; a directory's is made from its configuration. Factors of rotary frequencies are tensors
// (rope_freqs.weight, rope_factors_short.weight, rope_factors_long.weight).
#pragma once
#include <filesystem>
#include <vector>

#include "trainer/exports/export_format.h"
#include "trainer/exports/export_result.h"
#include "trainer/exports/export_source.h"

namespace graft {

// What would be written, in the file's order.
std::vector<ExportedTensor> gguf_tensors(const ExportSource& source, GgufFormat format);

// Fills in everything but `format` and `warning`. MachineError on a full disk; no half file stays.
void write_gguf(const ExportSource& source, const ExportFormat& format, const std::filesystem::path& path, ExportResult& result);

}  // namespace graft
