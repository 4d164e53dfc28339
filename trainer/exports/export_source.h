// What the export forms read of a model and its adapter: plain data, so that they compile without Torch.
#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "checkpoints/importance_matrix.h"
#include "checkpoints/tensor_source.h"
#include "checkpoints/weight_map.h"
#include "data/templates/chat_template.h"
#include "data/tokenizers/tokenizer.h"
#include "trainer/exports/column_products.h"
#include "trainer/models/decoder_spec.h"

namespace graft {

// One adapted matrix: its weight becomes W + scale * B A; without A (null) it becomes B, a matrix that was trained whole.
struct LowRankUpdate {
  const WeightRule* rule = nullptr;  // of the weight
  const float* a_RC = nullptr;       // [rank, inputs], row-major
  const float* b_OR = nullptr;       // [outputs, rank], rows in our order; whole: [outputs, inputs]
  int64_t rank = 0, inputs = 0, outputs = 0;
  double scale = 0;
  bool is_whole() const { return a_RC == nullptr; }
};

// A weight of which some rows and columns are kept, in our order (kept_widths.h); empty: all.
struct CutWeight {
  const WeightRule* whole = nullptr;
  std::vector<int64_t> rows, columns;
};

struct ExportSource {
  std::filesystem::path base;        // directory or .gguf file
  std::string base_name;             // its name without directories
  std::string base_licence;          // "unknown" where it states none
  const DecoderSpec* spec = nullptr;
  NameColumn column = NameColumn::kHub;   // how the base's tensors are named and laid out
  const TensorSource* tensors = nullptr;  // the base's; null: its pages are kept in memory when they were read (training reads them again)
  const std::vector<BoundWeight>* weights = nullptr;
  std::map<const WeightRule*, LowRankUpdate> updates;
  std::vector<int64_t> kept_layers;       // of the base's base_layers; empty: all
  int64_t base_layers = 0;
  std::map<const WeightRule*, CutWeight> cuts;   // of weights that are not kept whole, by the rule of what is left
  std::string kept;                       // kept.json: which layers, heads and channels of the base; empty: all
  std::vector<std::pair<std::string, std::vector<float>>> rope_factors;   // GGUF tensors of what rotary frequencies are divided by
  std::shared_ptr<const Tokenizer> tokenizer;         // may be null
  std::shared_ptr<const ChatTemplate> chat_template;  // may be null
  std::vector<std::pair<std::string, std::string>> facts;  // where it comes from: model card, graft.* metadata
  std::shared_ptr<const ImportanceMatrix> importance;   // may be null
  ColumnProducts* products = nullptr;   // rounding with error feedback; null: every weight is rounded by itself
  std::function<void(int64_t done, int64_t total)> progress;  // tensors; may be empty

  bool is_cut() const { return !kept_layers.empty() || !cuts.empty(); }
  bool is_gguf() const { return column == NameColumn::kGguf; }
  void report(int64_t done, int64_t total) const {
    if (progress) progress(done, total);
  }
};

}  // namespace graft
