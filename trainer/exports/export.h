// A trained model to what engines serve: merged GGUF or safetensors, or the adapter alone for PEFT or llama.cpp.
//
// Formats: export_format.h. Every export is written beside its place and renamed, so that it is there whole or not at all. With the same
// base, adapter and facts it has the same bytes.
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "checkpoints/importance_matrix.h"
#include "data/templates/chat_template.h"
#include "data/tokenizers/tokenizer.h"
#include "trainer/adapters/adapter_set.h"
#include "trainer/exports/export_format.h"
#include "trainer/exports/export_result.h"
#include "trainer/exports/kept_widths.h"
#include "trainer/exports/model_card.h"
#include "trainer/models/decoder.h"

namespace graft {

struct ExportRequest {
  std::filesystem::path base;             // directory or .gguf file, the one `decoder` was loaded from
  const Decoder* decoder = nullptr;
  const AdapterSet* adapters = nullptr;   // null: the base itself, converted
  AdapterOptions options;                 // the adapter's; adapter_options() reads those of a PEFT folder
  std::string format;
  std::filesystem::path out;              // a .gguf file, or a folder
  std::shared_ptr<const Tokenizer> tokenizer;         // null: the base has none
  std::shared_ptr<const ChatTemplate> chat_template;  // the one that was trained with; null: none
  ExportFacts facts;                      // export_facts() of the run's manifest
  std::vector<ManifestFile> expected_base;   // the files that the adapter was trained on, as its manifest lists them; empty: not checked
  std::vector<int64_t> layers;            // of the base that are kept, numbered anew (kept_layers.h): for merged forms in Hugging Face layout; empty: all
  std::string layers_chosen_by;           // empty: by name
  WidthOptions widths;                    // of these how much is kept (kept_widths.h), for the same forms
  std::shared_ptr<const ImportanceMatrix> activations;  // of the model with its adapter: what `widths` are chosen by
  std::shared_ptr<const ImportanceMatrix> importance;   // for quantised GGUF forms; null: all columns of a weight count alike
  ColumnProducts* products = nullptr;     // rounding with error feedback (error_feedback.h), for forms below 8 bits
  bool replace = false;                   // an export that is at `out`
  std::function<void(int64_t done, int64_t total)> progress;   // tensors
};

// UserError: an unknown format (lists them), an importance matrix for a form that takes none or of another model, another base than expected_base, an output that exists, an adapter form without an adapter, weights that
// the form cannot hold, a tokenizer that the form cannot express. MachineError: the disk is full or fails. Neither leaves a half export.
ExportResult export_model(const ExportRequest& request);

// The same without writing: tensor forms, bytes of the tensors, warning. `out` is not looked at.
ExportResult plan_export(const ExportRequest& request);

// UserError that lists what differs when `base` does not hold exactly these files (size, SHA-256). A GGUF file may have another name.
void check_base(const std::filesystem::path& base, const std::vector<ManifestFile>& expected);

}  // namespace graft
