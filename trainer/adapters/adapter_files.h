// An AdapterSet from and to a PEFT folder, or one of whole matrices (whole_matrices.h). Read are both layouts of experts (peft_layout.h).
#pragma once
#include <filesystem>
#include <memory>
#include <string>

#include "trainer/adapters/adapter_set.h"

namespace graft {

// What a PEFT folder says; `targets` are the full names of its modules. UserError for what graft does not compute: DoRA, biases, trained copies of
// modules, ranks or alphas of single modules, another kind than LoRA.
AdapterOptions adapter_options(Decoder& decoder, const std::filesystem::path& folder);

// A set with the folder's rank, scale and modules, on this decoder. UserError lists modules or shapes that do not fit.
std::unique_ptr<AdapterSet> load_adapter(Decoder& decoder, const std::filesystem::path& folder);

// Copies the folder's values into a set that was made by a recipe (adapter.from): same modules and rank, or a UserError.
void copy_adapter(AdapterSet& adapters, const std::filesystem::path& folder);

// base_name goes into base_model_name_or_path: the base's file or folder name, never an absolute path. experts_apart: each expert as a module of its own.
void save_adapter(const AdapterSet& adapters, const AdapterOptions& options, const std::string& base_name, const std::filesystem::path& folder, bool experts_apart = false);

}  // namespace graft
