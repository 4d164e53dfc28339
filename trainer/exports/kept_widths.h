// A model with narrower layers: of MLPs, attention and the residual stream those channels and heads are kept whose activations are largest (Minitron, arXiv 2407.14679).
// A student that begins as a part of its teacher, as with kept_layers.h.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "checkpoints/importance_matrix.h"
#include "trainer/exports/kept_layers.h"

namespace graft {

// The numbers of the `count` largest, ascending; of equal ones the first.
std::vector<int64_t> most_important(const std::vector<double>& of_each, int64_t count);

struct WidthOptions {   // how many are kept; none: all
  std::optional<int64_t> intermediate;   // channels between the halves of every MLP
  std::optional<int64_t> kv_heads;       // of every layer, each with its query heads; a head's size stays
  std::optional<int64_t> hidden;         // channels of the residual stream
  bool any() const { return intermediate || kv_heads || hidden; }
};

struct KeptWidths {
  PartialModel model;
  std::map<const WeightRule*, CutWeight> cuts;        // by the new rules
  // Which of the base's, ascending; empty where all are.
  std::vector<std::vector<int64_t>> intermediate, kv_heads;   // of each layer
  std::vector<int64_t> hidden;
  std::string describe(const DecoderSpec& base) const;   // one line
};

// UserError: a number that is not below the base's, layers that an option does not fit.
void check_widths(const DecoderSpec& spec, const WidthOptions& widths);

// Chosen by mean squares over tokens, layer by layer: of what the MLP's last matrix reads, channel by channel; of what the attention's last matrix reads, summed over a key-value
// head's query heads; and for the residual stream, summed over all layers, of what attention and MLP read: the norms' outputs.
// UserError: those of check_widths, `activations` of another model. `weights` must outlive the result.
KeptWidths keep_widths(const DecoderSpec& spec, const std::vector<BoundWeight>& weights, const WidthOptions& widths, const ImportanceMatrix& activations);

}  // namespace graft
