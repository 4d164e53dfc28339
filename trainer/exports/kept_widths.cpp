#include "trainer/exports/kept_widths.h"

#include <algorithm>
#include <numeric>

#include <fmt/ranges.h>

#include "kernels/common/error.h"
#include "trainer/models/families/family.h"

namespace graft {

std::vector<int64_t> most_important(const std::vector<double>& of_each, int64_t count) {
  std::vector<int64_t> order(of_each.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return of_each[static_cast<size_t>(a)] > of_each[static_cast<size_t>(b)]; });
  order.resize(static_cast<size_t>(count));
  std::sort(order.begin(), order.end());
  return order;
}

namespace {

using Indices = std::vector<int64_t>;

// What the rows or columns of a weight are.
enum class Axis { kOther, kHidden, kIntermediate, kGateUp, kQueries, kKeyValues, kQueryKeyValue, kHeads };

struct Axes {
  Axis rows = Axis::kOther, columns = Axis::kOther;
};

Axes axes_of(std::string_view part, const AttentionSpec* attention) {
  static const std::map<std::string_view, Axes> kAxes = {{"embedding", {Axis::kOther, Axis::kHidden}},
                                                         {"position_embedding", {Axis::kOther, Axis::kHidden}},
                                                         {"head", {Axis::kOther, Axis::kHidden}},
                                                         {"embedding_norm", {Axis::kHidden}},
                                                         {"final_norm", {Axis::kHidden}},
                                                         {"mixer_norm", {Axis::kHidden}},
                                                         {"mixer_post_norm", {Axis::kHidden}},
                                                         {"channel_norm", {Axis::kHidden}},
                                                         {"channel_post_norm", {Axis::kHidden}},
                                                         {"attention.query", {Axis::kQueries, Axis::kHidden}},
                                                         {"attention.key", {Axis::kKeyValues, Axis::kHidden}},
                                                         {"attention.value", {Axis::kKeyValues, Axis::kHidden}},
                                                         {"attention.qkv", {Axis::kQueryKeyValue, Axis::kHidden}},
                                                         {"attention.output", {Axis::kHidden, Axis::kQueries}},
                                                         {"attention.sinks", {Axis::kHeads}},
                                                         {"mlp.gate", {Axis::kIntermediate, Axis::kHidden}},
                                                         {"mlp.up", {Axis::kIntermediate, Axis::kHidden}},
                                                         {"mlp.gate_up", {Axis::kGateUp, Axis::kHidden}},
                                                         {"mlp.down", {Axis::kHidden, Axis::kIntermediate}}};
  const bool whole_width = attention && attention->head_norm_place == AttentionSpec::HeadNorm::kWholeWidth;
  if (part == "attention.query_norm") return {whole_width ? Axis::kQueries : Axis::kOther};
  if (part == "attention.key_norm") return {whole_width ? Axis::kKeyValues : Axis::kOther};
  const auto found = kAxes.find(part);
  return found == kAxes.end() ? Axes{} : found->second;
}

void check_number(const char* option, std::optional<int64_t> kept, int64_t of_base, const char* what) {
  if (!kept || (*kept > 0 && *kept < of_base)) return;
  fail("exports", "expected {} above 0 and below the base's {} {}, got {} — leave it out to keep all", option, of_base, what, *kept);
}

[[noreturn]] void does_not_fit(const char* option, const std::string& wanted, const std::string& got, const DecoderSpec& spec) {
  fail("exports", "expected {} for {}, got {} in {} — leave the option out", wanted, option, got, spec.family);
}

void check_layers(const DecoderSpec& spec, const WidthOptions& widths) {
  for (const auto& layer : spec.layers) {
    const char* of_channel = widths.intermediate ? "--intermediate" : widths.hidden ? "--hidden" : nullptr;
    if (of_channel && layer.experts()) does_not_fit(of_channel, "one MLP in each layer", "experts", spec);
    const char* of_mixer = widths.kv_heads ? "--kv-heads" : widths.hidden ? "--hidden" : nullptr;
    if (!of_mixer) continue;
    const std::string wanted = "attention with keys and values of each head in all layers";
    if (layer.latent_attention()) does_not_fit(of_mixer, wanted, "latent attention", spec);
    if (layer.delta_attention()) does_not_fit(of_mixer, wanted, "delta attention", spec);
    if (!widths.kv_heads) continue;
    if (layer.attention().alibi) does_not_fit(of_mixer, "heads that are alike", "linear biases that follow from a head's place", spec);
    if (layer.attention().output_gate) does_not_fit(of_mixer, "queries alone in a head's rows", "an output gate beside them", spec);
  }
}

DecoderSpec narrowed(DecoderSpec spec, const WidthOptions& widths) {
  for (auto& layer : spec.layers) {
    if (widths.intermediate) layer.mlp().width = *widths.intermediate;
    if (!widths.kv_heads) continue;
    auto& attention = layer.attention();
    attention.num_heads = attention.num_heads / attention.num_kv_heads * *widths.kv_heads;
    attention.num_kv_heads = *widths.kv_heads;
  }
  if (widths.hidden) spec.hidden_size = *widths.hidden;
  return spec;
}

// transformers refuses others of these families, though they name the size of a head.
void check_multiple(const DecoderSpec& spec) {
  for (const auto* family : {"llama", "gemma2", "gemma3_text"}) {
    const auto heads = spec.attention_layer().heads().num_heads;
    if (spec.family != family || spec.hidden_size % heads == 0) continue;
    fail("exports", "expected a hidden width that is a multiple of the attention heads, as transformers wants of {}, got {} and {} — choose other numbers", family, spec.hidden_size,
         heads);
  }
}

class Activations {
 public:
  Activations(const std::vector<BoundWeight>& weights, const ImportanceMatrix& matrix) : matrix_(matrix) {
    for (const auto& weight : weights) rules_[weight.rule->ours] = weight.rule;
  }

  // The mean square of each column that the first of these parts of a layer, which read the same, multiplies with.
  std::vector<double> read_by(size_t layer, std::initializer_list<const char*> parts) const {
    for (const auto* part : parts) {
      const auto found = rules_.find(fmt::format("layers.{}.{}.weight", layer, part));
      if (found != rules_.end()) return read_by(*found->second);
    }
    fail("exports", "expected a layer with {}, got none", *parts.begin());
  }

 private:
  std::vector<double> read_by(const WeightRule& rule) const {
    const auto means = matrix_.importance_of(rule.gguf);
    if (static_cast<int64_t>(means.size()) != rule.shape.at(1))
      fail("exports", "expected activations of {} columns of {}, got {} — make the importance matrix with this model", rule.shape.at(1), rule.gguf, means.size());
    std::vector<double> ours(means.begin(), means.end());
    const auto stored = stored_column_of_ours(rule, NameColumn::kGguf);
    for (size_t column = 0; column < stored.size(); ++column) ours[column] = means[static_cast<size_t>(stored[column])];
    return ours;
  }

  const ImportanceMatrix& matrix_;
  std::map<std::string, const WeightRule*> rules_;
};

void choose(KeptWidths& kept, const DecoderSpec& spec, const WidthOptions& widths, const Activations& activations) {
  std::vector<double> of_hidden(static_cast<size_t>(spec.hidden_size));
  for (size_t layer = 0; layer < spec.layers.size(); ++layer) {
    if (widths.intermediate) kept.intermediate.push_back(most_important(activations.read_by(layer, {"mlp.down"}), *widths.intermediate));
    if (widths.kv_heads) {
      const auto& attention = spec.layers[layer].attention();
      const auto of_column = activations.read_by(layer, {"attention.output"});
      std::vector<double> of_head(static_cast<size_t>(attention.num_kv_heads));
      for (size_t column = 0; column < of_column.size(); ++column) of_head[column * of_head.size() / of_column.size()] += of_column[column];
      kept.kv_heads.push_back(most_important(of_head, *widths.kv_heads));
    }
    if (!widths.hidden) continue;
    for (const auto& of_column : {activations.read_by(layer, {"attention.query", "attention.qkv"}), activations.read_by(layer, {"mlp.up", "mlp.gate_up"})}) {
      for (size_t column = 0; column < of_column.size(); ++column) of_hidden[column] += of_column[column];
    }
  }
  if (widths.hidden) kept.hidden = most_important(of_hidden, *widths.hidden);
}

// Each of `kept` as `size` neighbours, counted from `first`.
void append(Indices& to, const Indices& kept, int64_t size, int64_t first = 0) {
  for (const auto index : kept) {
    for (int64_t i = 0; i < size; ++i) to.push_back(first + index * size + i);
  }
}

// Of the base's, which along an axis are kept; empty: all.
Indices kept_along(Axis axis, size_t layer, const DecoderSpec& base, const KeptWidths& kept) {
  Indices along;
  if (axis == Axis::kHidden) return kept.hidden;
  if (axis == Axis::kIntermediate || axis == Axis::kGateUp) {
    if (kept.intermediate.empty()) return {};
    append(along, kept.intermediate[layer], 1);
    if (axis == Axis::kGateUp) append(along, kept.intermediate[layer], 1, base.layers[layer].mlp().width);
    return along;
  }
  if (axis == Axis::kOther || kept.kv_heads.empty()) return {};
  const auto& attention = base.layers[layer].attention();
  const auto& heads = kept.kv_heads[layer];
  const int64_t group = attention.num_heads / attention.num_kv_heads, size = attention.head_size;
  switch (axis) {
    case Axis::kHeads:
      append(along, heads, group);
      break;
    case Axis::kKeyValues:
      append(along, heads, size);
      break;
    default:
      append(along, heads, group * size);
      if (axis == Axis::kQueries) break;
      append(along, heads, size, attention.num_heads * size);
      append(along, heads, size, (attention.num_heads + attention.num_kv_heads) * size);
  }
  return along;
}

CutWeight cut_of(const WeightRule& rule, const DecoderSpec& base, const KeptWidths& kept) {
  const auto name = layer_name(rule.ours);
  std::string_view part = name.layer < 0 ? std::string_view(rule.ours) : name.rest.substr(1);
  for (const std::string_view kind : {".weight", ".bias"}) {
    if (part.ends_with(kind)) part.remove_suffix(kind.size());
  }
  const auto layer = static_cast<size_t>(std::max<int64_t>(name.layer, 0));
  const auto axes = axes_of(part, name.layer < 0 ? nullptr : std::get_if<AttentionSpec>(&base.layers[layer].mixer));
  CutWeight cut{&rule, kept_along(axes.rows, layer, base, kept), {}};
  if (rule.shape.size() == 2) cut.columns = kept_along(axes.columns, layer, base, kept);
  return cut;
}

std::vector<int64_t> shape_of(const CutWeight& cut) {
  auto shape = cut.whole->shape;
  if (!cut.rows.empty()) shape[0] = static_cast<int64_t>(cut.rows.size());
  if (!cut.columns.empty()) shape[1] = static_cast<int64_t>(cut.columns.size());
  return shape;
}

}  // namespace

void check_widths(const DecoderSpec& spec, const WidthOptions& widths) {
  check_layers(spec, widths);
  if (widths.intermediate) check_number("--intermediate", widths.intermediate, spec.dense_width(), "channels");
  if (widths.kv_heads) check_number("--kv-heads", widths.kv_heads, spec.layers.at(0).attention().num_kv_heads, "key-value heads");
  check_number("--hidden", widths.hidden, spec.hidden_size, "channels");
  if (widths.kv_heads || widths.hidden) check_multiple(narrowed(spec, widths));
}

std::string KeptWidths::describe(const DecoderSpec& base) const {
  std::vector<std::string> parts;
  if (!hidden.empty()) parts.push_back(fmt::format("{} of {} channels of the residual stream", hidden.size(), base.hidden_size));
  if (!kv_heads.empty()) {
    const auto heads = base.layers.at(0).heads();
    parts.push_back(fmt::format("{} of {} key-value heads of each layer, with {} of {} query heads", kv_heads[0].size(), heads.num_kv_heads,
                                heads.num_heads / heads.num_kv_heads * static_cast<int64_t>(kv_heads[0].size()), heads.num_heads));
  }
  if (!intermediate.empty()) parts.push_back(fmt::format("{} of {} channels of each MLP", intermediate[0].size(), base.dense_width()));
  return fmt::format("{}", fmt::join(parts, "; "));
}

KeptWidths keep_widths(const DecoderSpec& spec, const std::vector<BoundWeight>& weights, const WidthOptions& widths, const ImportanceMatrix& activations) {
  check_widths(spec, widths);
  KeptWidths kept;
  kept.model.spec = narrowed(spec, widths);
  check_spec(kept.model.spec);
  choose(kept, spec, widths, Activations(weights, activations));
  kept.model.map = family_of_model_type(spec.family).weight_map(kept.model.spec);
  std::map<std::string, const BoundWeight*> stored;
  for (const auto& weight : weights) stored[weight.rule->ours] = &weight;
  for (const auto& rule : kept.model.map.rules) {
    const auto found = stored.find(rule.ours);
    if (found == stored.end()) fail("exports", "expected {} to be cut by its widths, got no such weight of the whole model: {}", spec.family, rule.ours);
    const auto& whole = *found->second;
    auto cut = cut_of(*whole.rule, spec, kept);
    if (shape_of(cut) != rule.shape) fail("exports", "expected {} to be cut by its widths, got another shape than its configuration would say: {}", spec.family, rule.ours);
    if (!cut.rows.empty() || !cut.columns.empty()) kept.cuts[&rule] = std::move(cut);
    kept.model.weights.push_back(whole);
    kept.model.weights.back().rule = &rule;
    kept.model.rules[whole.rule] = &rule;
  }
  return kept;
}

}  // namespace graft
