#include "checkpoints/weight_map.h"

#include <algorithm>
#include <set>

#include <fmt/ranges.h>

#include "kernels/common/error.h"

namespace graft {
namespace {

bool matches_any(const std::vector<std::string>& patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
    if (pattern.starts_with('*')) return name.ends_with(std::string_view(pattern).substr(1));
    if (pattern.ends_with('*')) return name.starts_with(std::string_view(pattern).substr(0, pattern.size() - 1));
    return name == pattern;
  });
}

const StoredTensor* find_named(const WeightMap& map, NameColumn column, const std::string& name, const TensorSource& source) {
  if (const auto* tensor = source.find(name)) return tensor;
  if (column != NameColumn::kHub) return nullptr;
  for (const auto& [ours, theirs] : map.hub_aliases) {
    const auto at = ours.starts_with('.') ? name.find(ours) : name.starts_with(ours) ? 0 : std::string::npos;
    if (at == std::string::npos) continue;
    if (const auto* tensor = source.find(std::string(name).replace(at, ours.size(), theirs))) return tensor;
  }
  return nullptr;
}

struct Found {
  const StoredTensor* tensor = nullptr;
  const StoredForm* form = nullptr;
};

Found find_stored(const WeightMap& map, NameColumn column, const WeightRule& rule, const TensorSource& source) {
  if (const auto* tensor = find_named(map, column, rule.name(column), source)) return {tensor, &rule.form(column)};
  if (column == NameColumn::kGguf || rule.hub_stacked.empty()) return {};
  const auto* tensor = find_named(map, column, rule.hub_stacked, source);
  return {tensor, tensor ? &rule.hub_stacked_form : nullptr};
}

std::vector<int64_t> shape_in(const WeightRule& rule, const StoredForm& form) {
  if (!form.whole.empty()) return form.whole;
  return form.transposed ? std::vector<int64_t>{rule.shape.at(1), rule.shape.at(0)} : rule.shape;
}

// The rule's own tensor out of the one that holds it.
std::shared_ptr<const StoredTensor> slice_of(const StoredTensor& whole, const WeightRule& rule, const StoredForm& form) {
  auto slice = std::make_shared<StoredTensor>(whole);
  slice->shape = form.transposed ? std::vector<int64_t>{rule.shape.at(1), rule.shape.at(0)} : rule.shape;
  slice->shape.back() *= form.interleaved;
  const auto begin = bytes_of(whole.type, std::vector<int64_t>{form.first}).value();
  slice->bytes = whole.bytes.subspan(static_cast<size_t>(begin), static_cast<size_t>(bytes_of(whole.type, slice->shape).value()));
  return slice;
}

// Whether two shapes hold the same numbers in the same order: dimensions of one element say nothing, and writers differ in them.
bool same_but_for_ones(std::vector<int64_t> a, std::vector<int64_t> b) {
  for (auto* shape : {&a, &b}) std::erase(*shape, 1);
  return a == b;
}

// For each of our elements (part, head, i) its place among (head, part, i).
std::vector<int64_t> parts_by_head(int64_t count, int64_t heads, int64_t parts) {
  std::vector<int64_t> order(static_cast<size_t>(count));
  const int64_t size = count / parts / heads;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t part = i / (heads * size), head = i / size % heads;
    order[static_cast<size_t>(i)] = (head * parts + part) * size + i % size;
  }
  return order;
}

void add_once(std::vector<std::string>& names, std::string name) {
  if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(std::move(name));
}

std::string listed(const std::vector<std::string>& names) {
  constexpr size_t kShown = 12;
  if (names.size() <= kShown) return fmt::format("{}", fmt::join(names, ", "));
  return fmt::format("{}, ... ({} in all)", fmt::join(names.begin(), names.begin() + kShown, ", "), names.size());
}

}  // namespace

bool is_linear_weight(const WeightRule& rule) {
  constexpr std::string_view kModules[] = {".attention.", ".mlp.", ".experts.", ".shared.", ".delta."};
  const auto holds = [&](std::string_view part) { return rule.ours.find(part) != std::string::npos; };
  return rule.ours.starts_with("layers.") && std::any_of(std::begin(kModules), std::end(kModules), holds) && !holds(".convolution") && rule.ours.ends_with(".weight") && rule.shape.size() == 2;
}

bool is_expert_weight(const WeightRule& rule) { return is_linear_weight(rule) && rule.ours.find(".experts.") != std::string::npos; }

const WeightRule* WeightMap::find(std::string_view ours) const {
  for (const auto& rule : rules) {
    if (rule.ours == ours) return &rule;
  }
  return nullptr;
}

std::vector<int64_t> WeightRule::stored_shape(NameColumn column) const { return shape_in(*this, form(column)); }

std::string WeightRule::module_name() const {
  constexpr std::string_view kEnding = ".weight";
  if (!module.empty()) return module;
  return !hub_stacked.empty() ? hub_stacked : hub.ends_with(kEnding) ? hub.substr(0, hub.size() - kEnding.size()) : hub;
}

std::vector<int64_t> stored_row_of_ours(const WeightRule& rule, NameColumn column) {
  const auto& form = rule.form(column);
  if (form.rows == StoredForm::Rows::kAsOurs) return {};
  const int64_t rows = rule.shape.at(0);
  if (form.rows == StoredForm::Rows::kPartsByHead) return parts_by_head(rows, form.heads, form.parts);
  std::vector<int64_t> order(rows);
  const int64_t head_size = rows / form.heads, half = head_size / 2;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t head = row / head_size, within = row % head_size;
    order[row] = head * head_size + 2 * (within % half) + within / half;
  }
  return order;
}

std::vector<int64_t> stored_column_of_ours(const WeightRule& rule, NameColumn column) {
  const auto& form = rule.form(column);
  return form.column_heads == 0 ? std::vector<int64_t>() : parts_by_head(rule.shape.at(1), form.column_heads, form.column_parts);
}

std::vector<int64_t> stored_row_of_ours(const std::vector<const WeightRule*>& rules, NameColumn column) {
  std::vector<int64_t> all;
  bool moved = false;
  for (const auto* rule : rules) {
    const auto& form = rule->form(column);
    const auto order = stored_row_of_ours(*rule, column);
    const int64_t first = form.whole.empty() ? static_cast<int64_t>(all.size()) : form.first / rule->shape.at(1);
    for (int64_t row = 0; row < rule->shape[0]; ++row) {
      all.push_back(first + (order.empty() ? row : order[static_cast<size_t>(row)]));
      moved = moved || all.back() + 1 != static_cast<int64_t>(all.size());
    }
  }
  return moved ? all : std::vector<int64_t>();
}

std::vector<int64_t> our_row_of_stored(const WeightRule& rule, NameColumn column) {
  const auto order = stored_row_of_ours(rule, column);
  std::vector<int64_t> inverse(order.size());
  for (size_t ours = 0; ours < order.size(); ++ours) inverse[order[ours]] = static_cast<int64_t>(ours);
  return inverse;
}

std::vector<std::string> skipped_tensors(const WeightMap& map, const TensorSource& source) {
  std::vector<std::string> names;
  for (const auto& tensor : source.tensors()) {
    if (matches_any(map.skipped, tensor.name)) names.push_back(tensor.name);
  }
  return names;
}

std::vector<BoundWeight> bind_weights(const WeightMap& map, NameColumn column, const TensorSource& source) {
  std::vector<BoundWeight> bound;
  std::vector<std::string> missing, misshaped, surplus;
  std::set<std::string> known;
  for (const auto& rule : map.rules) {
    const auto [tensor, form] = find_stored(map, column, rule, source);
    if (tensor) known.insert(tensor->name);
    BoundWeight weight{&rule, tensor, form, nullptr};
    if (!tensor) {
      add_once(missing, rule.name(column));
    } else if (const auto expected = shape_in(rule, *form); form->whole.empty() ? tensor->shape != expected : !same_but_for_ones(tensor->shape, expected)) {
      add_once(misshaped, fmt::format("{} is [{}], expected [{}]", tensor->name, fmt::join(tensor->shape, ", "), fmt::join(expected, ", ")));
    } else if (!form->whole.empty()) {
      weight.slice = slice_of(*tensor, rule, *form);
      weight.tensor = weight.slice.get();
    }
    bound.push_back(std::move(weight));
  }
  for (const auto& tensor : source.tensors()) {
    if (!known.contains(tensor.name) && !matches_any(map.ignored, tensor.name) && !matches_any(map.skipped, tensor.name)) surplus.push_back(tensor.name);
  }
  if (missing.empty() && misshaped.empty() && surplus.empty()) return bound;
  std::string text = "expected exactly the tensors that the configuration describes, got";
  if (!missing.empty()) text += fmt::format("\n  missing: {}", listed(missing));
  if (!misshaped.empty()) text += fmt::format("\n  misshaped: {}", listed(misshaped));
  if (!surplus.empty()) text += fmt::format("\n  surplus: {}", listed(surplus));
  const auto where = source.files().empty() ? std::string("model") : source.files().front().filename().string();
  fail("checkpoints", "{}\n({}) — check that the files are complete and belong to this configuration", text, where);
}

}  // namespace graft
