// A MODEL argument (a directory in Hugging Face layout, a .gguf file, or a run folder) to its parts.
#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "trainer/models/decoder.h"

namespace graft {

struct ModelFiles {
  std::filesystem::path base;                       // directory or .gguf file that holds the weights
  std::optional<std::filesystem::path> adapter;     // a run folder's trained adapter
  std::optional<std::filesystem::path> run;         // the run folder itself
  std::string quantize_base = "none";               // as the run's recipe has it
  bool is_gguf() const { return base.extension() == ".gguf"; }
};

// UserError when it is none of the three.
ModelFiles find_model(const std::filesystem::path& model);

// Reads config.json or the GGUF header, binds the weights. Nothing is copied but rows that must move and matrices whose parts lie apart, or are to be quantised
// (quantized_base_names).
std::unique_ptr<Decoder> load_decoder(const std::filesystem::path& base, ComputeType compute, const std::string& quantize_base = "none");

// What the base declares of its licence, its own licence file first: the beginning of LICENSE, the model card's front matter, general.license of GGUF.
std::vector<std::string> declared_licences(const std::filesystem::path& base);
// The first of them; "unknown".
std::string declared_licence(const std::filesystem::path& base);

}  // namespace graft
