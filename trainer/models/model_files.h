// A MODEL argument (a directory in Hugging Face layout, a .gguf file, or a run folder) to its parts.
#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "trainer/models/decoder.h"

namespace graft {

struct ModelFiles {
  std::filesystem::path base;                       // directory or .gguf file that holds the weights
  std::optional<std::filesystem::path> adapter;     // a run folder's trained adapter
  std::optional<std::filesystem::path> run;         // the run folder itself
  bool is_gguf() const { return base.extension() == ".gguf"; }
};

// UserError when it is none of the three.
ModelFiles find_model(const std::filesystem::path& model);

// Reads config.json or the GGUF header, binds the weights. Nothing is copied but rows that must move.
std::unique_ptr<Decoder> load_decoder(const std::filesystem::path& base, ComputeType compute);

// What the base declares of its licence: general.license of GGUF, LICENSE's first line or README front matter of a directory; "unknown".
std::string declared_licence(const std::filesystem::path& base);

}  // namespace graft
