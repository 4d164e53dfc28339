// Rules from checkpoint names to ours, each with its inverse: loading, merging and exporting are one table read in two directions.
// Hub (safetensors, PEFT) and GGUF names are two columns of it. No model types here.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "checkpoints/tensor_source.h"

namespace graft {

enum class NameColumn { kHub, kGguf };

// How files of one column store a tensor, where not as we hold it. Each form has its inverse.
struct StoredForm {
  enum class Rows {
    kAsOurs,
    kRotaryPairs,    // llama in GGUF: stored row (h, 2i + j) of a head is our row (h, i + j * rows/heads/2)
    kPartsByHead,    // stored row (h, part, d) is our row (part, h, d): query, key and value of bloom on the hub, query and gate of Qwen3-Next
  };
  Rows rows = Rows::kAsOurs;
  int64_t heads = 0;           // of kRotaryPairs and kPartsByHead
  int64_t parts = 3;           // of kPartsByHead, all of one size
  int64_t column_heads = 0, column_parts = 0;   // columns as kPartsByHead has rows; 0: as ours. Only written so: a file is read in the order that the spec says
  bool transposed = false;     // [in, out]: plain numbers only (gpt2 on the hub)
  float offset = 0;            // of vectors: stored = ours + offset (gemma's norms on the hub: -1)
  bool minus_exponential = false;   // of vectors: stored = -exp(ours) (rates of decay in GGUF)
  // The stored tensor's own shape, where it is another than the rule's: it holds several tensors of ours one after another (experts), and this one from
  // element `first` on; or one, with another number of dimensions. Empty: the rule's shape.
  std::vector<int64_t> whole;
  int64_t first = 0;
  // Of transposed matrices and of vectors: ours are every `interleaved`-th stored column from `phase` on (gate and up of gpt_oss on the hub).
  int64_t interleaved = 1, phase = 0;
};

struct WeightRule {
  std::string ours;             // "layers.0.attention.query.weight"
  std::string hub, gguf;        // "model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight"
  std::vector<int64_t> shape;   // as ours
  StoredForm hub_form, gguf_form;
  std::string module{};                 // what carries an adapter, where module_name() would say otherwise
  // Another hub layout of the same weight, where there are two (experts one by one, or stacked). PEFT's parameter of that name is what an adapter sits on.
  std::string hub_stacked{};
  StoredForm hub_stacked_form{};
  bool gguf_lora = true;                // llama.cpp adds adapters to this product; some it multiplies without
  const std::string& name(NameColumn column) const { return column == NameColumn::kHub ? hub : gguf; }
  const StoredForm& form(NameColumn column) const { return column == NameColumn::kHub ? hub_form : gguf_form; }
  std::vector<int64_t> stored_shape(NameColumn column) const;
  // The module that carries an adapter of this weight, as adapter.targets name it: the hub name without .weight, or the stacked parameter.
  std::string module_name() const;
};

// Whether it is the weight of a linear in a layer, as engines quantise them: no embedding, head, router, convolution or indexer.
bool is_linear_weight(const WeightRule& rule);
// Whether it is the matrix of one of several experts that a router chooses from.
bool is_expert_weight(const WeightRule& rule);

struct WeightMap {
  std::vector<WeightRule> rules;
  std::vector<std::string> ignored;   // names (a leading or trailing * matches the rest) in either column that carry nothing to load: rotary tables
  std::vector<std::string> skipped;   // parts of a checkpoint that are not trained here, listed by `plan`: vision towers, layers that predict further tokens
  // Hub names that begin with `first` may begin with `second` instead: files of one model under another wrapper ("transformer.h." and "h.").
  std::vector<std::pair<std::string, std::string>> hub_aliases;
  const WeightRule* find(std::string_view ours) const;
};

// For each of our rows, the stored row it comes from. Empty: rows are stored as ours.
std::vector<int64_t> stored_row_of_ours(const WeightRule& rule, NameColumn column);
// The same of columns (StoredForm::column_heads).
std::vector<int64_t> stored_column_of_ours(const WeightRule& rule, NameColumn column);
// The same of the rows of several rules that are one matrix of ours, within the one tensor that holds them there; a rule without such a tensor follows the one before.
std::vector<int64_t> stored_row_of_ours(const std::vector<const WeightRule*>& rules, NameColumn column);
// For each stored row, our row it comes from: the inverse, for writing.
std::vector<int64_t> our_row_of_stored(const WeightRule& rule, NameColumn column);

struct BoundWeight {
  const WeightRule* rule = nullptr;
  const StoredTensor* tensor = nullptr;          // in the rule's own shape
  const StoredForm* form = nullptr;              // how it lies there: of two hub layouts the one that was found
  std::shared_ptr<const StoredTensor> slice;     // holds `tensor` where it is a part of a larger one
};

// The source's tensors that the map skips, in the source's order.
std::vector<std::string> skipped_tensors(const WeightMap& map, const TensorSource& source);

// Finds every rule's tensor. All missing, surplus and misshaped tensors are one UserError. The order is the rules'.
std::vector<BoundWeight> bind_weights(const WeightMap& map, NameColumn column, const TensorSource& source);

}  // namespace graft
