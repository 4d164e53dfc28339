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

const StoredTensor* find_stored(const WeightMap& map, NameColumn column, const WeightRule& rule, const TensorSource& source) {
  const auto& name = rule.name(column);
  if (const auto* tensor = source.find(name)) return tensor;
  if (column != NameColumn::kHub) return nullptr;
  for (const auto& [ours, theirs] : map.hub_aliases) {
    if (!name.starts_with(ours)) continue;
    if (const auto* tensor = source.find(theirs + name.substr(ours.size()))) return tensor;
  }
  return nullptr;
}

std::string listed(const std::vector<std::string>& names) {
  constexpr size_t kShown = 12;
  if (names.size() <= kShown) return fmt::format("{}", fmt::join(names, ", "));
  return fmt::format("{}, ... ({} in all)", fmt::join(names.begin(), names.begin() + kShown, ", "), names.size());
}

}  // namespace

const WeightRule* WeightMap::find(std::string_view ours) const {
  for (const auto& rule : rules) {
    if (rule.ours == ours) return &rule;
  }
  return nullptr;
}

std::vector<int64_t> WeightRule::stored_shape(NameColumn column) const {
  return form(column).transposed ? std::vector<int64_t>{shape.at(1), shape.at(0)} : shape;
}

std::vector<int64_t> stored_row_of_ours(const WeightRule& rule, NameColumn column) {
  const auto& form = rule.form(column);
  if (form.rows == StoredForm::Rows::kAsOurs) return {};
  const int64_t rows = rule.shape.at(0);
  std::vector<int64_t> order(rows);
  if (form.rows == StoredForm::Rows::kQkvByHead) {
    const int64_t size = rows / 3 / form.heads;
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t part = row / (form.heads * size), head = row / size % form.heads;
      order[row] = (head * 3 + part) * size + row % size;
    }
    return order;
  }
  const int64_t head_size = rows / form.heads, half = head_size / 2;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t head = row / head_size, within = row % head_size;
    order[row] = head * head_size + 2 * (within % half) + within / half;
  }
  return order;
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
    const auto* tensor = find_stored(map, column, rule, source);
    if (!tensor) {
      missing.push_back(rule.name(column));
    } else if (const auto expected = rule.stored_shape(column); tensor->shape != expected) {
      misshaped.push_back(
          fmt::format("{} is [{}], expected [{}]", tensor->name, fmt::join(tensor->shape, ", "), fmt::join(expected, ", ")));
    }
    if (tensor) known.insert(tensor->name);
    bound.push_back({&rule, tensor});
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
