// A GGUF LoRA file (general.type "adapter") as an AdapterSet on its base: how llama.cpp reads it (engines.md section 5).
#pragma once
#include <filesystem>
#include <memory>

#include "trainer/adapters/adapter_set.h"

namespace graft {

// UserError when the file is no LoRA, belongs to another architecture, or holds tensors that the base lacks.
std::unique_ptr<AdapterSet> load_gguf_adapter(Decoder& decoder, const std::filesystem::path& path);

}  // namespace graft
