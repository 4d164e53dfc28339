// Rules from checkpoint names to ours, each with its inverse: loading, merging and exporting are one table read in two directions.
// Hub (safetensors, PEFT) and GGUF names are two columns of it. No model types here.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "checkpoints/tensor_source.h"

namespace graft {

enum class NameColumn { kHub, kGguf };

struct WeightRule {
  std::string ours;             // "layers.0.attention.query.weight"
  std::string hub, gguf;        // "model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight"
  std::vector<int64_t> shape;   // as ours
  // Heads whose rows GGUF stores as interleaved rotary pairs (llama): GGUF row (h, 2i + j) is our row (h, i + j * rows/heads/2); 0: as ours.
  int64_t gguf_interleaved_heads = 0;
  const std::string& name(NameColumn column) const { return column == NameColumn::kHub ? hub : gguf; }
};

struct WeightMap {
  std::vector<WeightRule> rules;
  std::vector<std::string> ignored;   // names (a trailing * matches the rest) in either column that carry nothing to load: rotary tables
  const WeightRule* find(std::string_view ours) const;
};

// For each of our rows, the stored row it comes from (stored[r] belongs at ours[row_order[r]]'s inverse is its own function below).
// Empty: rows are stored as ours.
std::vector<int64_t> stored_row_of_ours(const WeightRule& rule, NameColumn column);
// For each stored row, our row it comes from: the inverse, for writing.
std::vector<int64_t> our_row_of_stored(const WeightRule& rule, NameColumn column);

struct BoundWeight {
  const WeightRule* rule = nullptr;
  const StoredTensor* tensor = nullptr;
};

// Finds every rule's tensor. All missing, surplus and misshaped tensors are one UserError. The order is the rules'.
std::vector<BoundWeight> bind_weights(const WeightMap& map, NameColumn column, const TensorSource& source);

}  // namespace graft
