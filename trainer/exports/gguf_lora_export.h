// The adapter as a GGUF file that llama.cpp loads beside the ORIGINAL base file.
//
// Per adapted matrix W [out, in]: <W>.lora_a [rank, in] and <W>.lora_b [out, rank], float32. llama.cpp computes W x + (alpha / rank) B A x, so
// alpha carries the scale (rsLoRA's too), and rows of B follow the rows of W (llama: interleaved rotary pairs of query and key).
#pragma once
#include <filesystem>
#include <vector>

#include "trainer/exports/export_format.h"
#include "trainer/exports/export_result.h"
#include "trainer/exports/export_source.h"

namespace graft {

std::vector<ExportedTensor> gguf_lora_tensors(const ExportSource& source);

// As write_gguf. Where the chat template is not the base's own, it is written beside the file (<file>.jinja) and named in `serve`.
void write_gguf_lora(const ExportSource& source, const ExportFormat& format, const std::filesystem::path& path, ExportResult& result);

}  // namespace graft
