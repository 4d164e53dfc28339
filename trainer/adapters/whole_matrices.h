// What adapter.kind full trains, on disk: a folder as an adapter's (adapter_config.json, adapter_model.safetensors), of matrices in place of factors: "<module>.weight", float32
// [outputs, inputs], rows in graft's order. PEFT has no such kind (peft_type GRAFT_FULL); merged exports are for engines.
#pragma once
#include <filesystem>
#include <memory>
#include <string>

#include "trainer/adapters/adapter_set.h"

namespace graft {

bool holds_whole_matrices(const std::filesystem::path& folder);

void save_whole_matrices(const AdapterSet& adapters, const std::string& base_name, const std::filesystem::path& folder);

// UserError lists what does not fit the decoder.
AdapterOptions whole_matrices_options(const std::filesystem::path& folder);
std::unique_ptr<AdapterSet> load_whole_matrices(Decoder& decoder, const std::filesystem::path& folder);
void copy_whole_matrices(AdapterSet& adapters, const std::filesystem::path& folder);

}  // namespace graft
