// The files beside the weights in Hugging Face layout: configuration, tokenizer, chat template, generation defaults.
#pragma once
#include <filesystem>
#include <vector>

#include <nlohmann/json.hpp>

#include "kernels/quantized/tensor_type.h"
#include "trainer/exports/export_source.h"

namespace graft {

// config.json: the base's own where it is a directory, else made from its hyperparameters. Type of the weights as torch_dtype and dtype; rotary
// keys in the spellings of transformers 4 and 5 both (mistralrs needs the former). No path of the machine it was made on.
nlohmann::ordered_json hub_config(const ExportSource& source, TensorType type);

// generation_config.json: the base's own, if any, with every token that ends a turn in eos_token_id.
nlohmann::ordered_json hub_generation_config(const ExportSource& source);

// Tokenizer files: the base directory's copied, a GGUF base's written anew. tokenizer_config.json never names another template than
// chat_template.jinja. False when there is no tokenizer to write.
bool write_tokenizer_files(const ExportSource& source, const std::filesystem::path& folder);

// The regular files of a folder, sorted, and their bytes.
std::vector<std::filesystem::path> files_in(const std::filesystem::path& folder);
uint64_t bytes_in(const std::vector<std::filesystem::path>& files);

}  // namespace graft
