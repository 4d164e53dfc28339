#include "trainer/exports/merged_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <unordered_map>

#include <ATen/Parallel.h>

#include "checkpoints/codecs/quantize.h"
#include "kernels/common/error.h"
#include "kernels/matrix_product/matrix_product.h"
#include "kernels/quantized/dequantize.h"

namespace graft {
namespace {

constexpr int64_t kBlockRows = 64;

// A tensor as rows, and where each row of the target comes from.
struct Rows {
  int64_t count = 0, columns = 0;
  std::vector<int64_t> ours_of_target, stored_of_ours;   // empty: the same row
  bool move() const { return !ours_of_target.empty() || !stored_of_ours.empty(); }
  int64_t ours(int64_t target) const { return ours_of_target.empty() ? target : ours_of_target[target]; }
  int64_t stored(int64_t target) const { return stored_of_ours.empty() ? ours(target) : stored_of_ours[ours(target)]; }
};

Rows rows_of(const MergedPart& tensor, NameColumn source, NameColumn target) {
  Rows rows;
  rows.ours_of_target = our_row_of_stored(*tensor.rule, target);
  rows.stored_of_ours = stored_row_of_ours(tensor.whole_rule(), source);
  if (tensor.cut && !tensor.cut->rows.empty()) {
    const auto& kept = tensor.cut->rows;
    if (rows.ours_of_target.empty()) rows.ours_of_target = kept;
    else for (auto& row : rows.ours_of_target) row = kept[static_cast<size_t>(row)];
  }
  const auto& shape = tensor.stored->shape;
  if (shape.size() == 1) {   // a bias moves with its matrix's rows; other vectors are one row
    rows.count = rows.move() ? tensor.rule->shape[0] : 1;
    rows.columns = rows.move() ? 1 : shape[0];
  } else {
    rows.count = tensor.cut ? tensor.rule->shape.at(0) : shape.at(0);
    rows.columns = tensor.stored->num_elements() / std::max<int64_t>(shape.at(0), 1);
  }
  return rows;
}

// Rows first .. first + count of the target, float32.
void merge_rows(const MergedPart& tensor, const Rows& rows, int64_t first, int64_t count, float* merged_NC) {
  const auto& stored = *tensor.stored;
  const int64_t row_bytes = bytes_of(stored.type, std::vector<int64_t>{rows.columns}).value();
  for (int64_t r = 0; r < count; ++r) {
    dequantize(stored.type, stored.bytes.data() + rows.stored(first + r) * row_bytes, rows.columns, merged_NC + r * rows.columns);
  }
  if (!tensor.update) return;
  const auto& update = *tensor.update;
  if (update.is_whole()) {
    for (int64_t r = 0; r < count; ++r) std::copy_n(update.b_OR + rows.ours(first + r) * rows.columns, rows.columns, merged_NC + r * rows.columns);
    return;
  }
  std::vector<float> b_NR(count * update.rank);
  for (int64_t r = 0; r < count; ++r) {
    std::copy_n(update.b_OR + rows.ours(first + r) * update.rank, update.rank, b_NR.data() + r * update.rank);
  }
  matrix_product(count, rows.columns, update.rank, {b_NR.data(), update.rank}, {update.a_RC, rows.columns}, merged_NC, rows.columns,
                 static_cast<float>(update.scale), 1);
}

// Whether `source` and `target` hold a tensor otherwise than by the order of its rows.
bool is_reshaped(const MergedPart& tensor, NameColumn target) {
  const auto &from = *tensor.form, &to = tensor.rule->form(target);
  return from.transposed || to.transposed || from.offset != to.offset || from.minus_exponential != to.minus_exponential || from.column_heads != to.column_heads ||
         from.interleaved != to.interleaved;
}

std::vector<float> transposed(const std::vector<float>& values, int64_t rows, int64_t columns) {
  std::vector<float> result(values.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) result[c * rows + r] = values[r * columns + c];
  }
  return result;
}

// Our rows of a tensor in which they stand in turn with others'.
std::vector<float> deinterleaved(const std::vector<float>& values, int64_t row_size, const StoredForm& form) {
  std::vector<float> result;
  for (size_t row = static_cast<size_t>(form.phase); row * row_size < values.size(); row += static_cast<size_t>(form.interleaved)) {
    result.insert(result.end(), values.begin() + static_cast<int64_t>(row) * row_size, values.begin() + static_cast<int64_t>(row + 1) * row_size);
  }
  return result;
}

// Row i of the result is row order[i] of the values.
std::vector<float> taken_rows(std::vector<float> values, int64_t row_size, const std::vector<int64_t>& order) {
  if (order.empty()) return values;
  std::vector<float> result(values.size());
  for (size_t row = 0; row < order.size(); ++row) std::copy_n(values.data() + order[row] * row_size, row_size, result.data() + static_cast<int64_t>(row) * row_size);
  return result;
}

// Column c of the result is column columns[c] of the values; their number after that.
int64_t take_columns(std::vector<float>& values, int64_t row_size, const std::vector<int64_t>& columns) {
  if (columns.empty()) return row_size;
  size_t to = 0;
  for (size_t row = 0; row < values.size(); row += static_cast<size_t>(row_size)) {
    for (const auto column : columns) values[to++] = values[row + static_cast<size_t>(column)];   // ascending: never before it is read
  }
  values.resize(to);
  return static_cast<int64_t>(columns.size());
}

// Column `order[c]` of the result is column c of the values.
void put_columns(std::vector<float>& values, const std::vector<int64_t>& order) {
  std::vector<float> row(order.size());
  for (size_t first = 0; !order.empty() && first < values.size(); first += order.size()) {
    for (size_t c = 0; c < order.size(); ++c) row[static_cast<size_t>(order[c])] = values[first + c];
    std::copy(row.begin(), row.end(), values.begin() + static_cast<int64_t>(first));
  }
}

// A tensor that is transposed or offset in one of the two columns, merged as a whole: in our rows and columns, with the target's offset.
std::vector<float> merge_reshaped_whole(const MergedPart& tensor, NameColumn source, NameColumn target) {
  const auto& rule = tensor.whole_rule();
  const auto &from = *tensor.form, &to = tensor.rule->form(target);
  std::vector<float> values(static_cast<size_t>(tensor.stored->num_elements()));
  dequantize(tensor.stored->type, tensor.stored->bytes.data(), tensor.stored->num_elements(), values.data());
  for (auto& value : values) {
    value += to.offset - from.offset;
    if (from.minus_exponential && !to.minus_exponential) value = std::log(-value);
    if (to.minus_exponential && !from.minus_exponential) value = -std::exp(value);
  }
  const int64_t rows = rule.shape[0], columns = rule.shape.size() == 2 ? rule.shape[1] : 1;
  if (from.transposed) values = transposed(values, columns, rows * from.interleaved);
  if (from.interleaved > 1) values = deinterleaved(values, columns, from);
  values = taken_rows(std::move(values), columns, stored_row_of_ours(rule, source));
  if (tensor.update) {
    const auto& update = *tensor.update;
    if (update.is_whole()) return {update.b_OR, update.b_OR + rows * columns};
    matrix_product(rows, columns, update.rank, {update.b_OR, update.rank}, {update.a_RC, columns}, values.data(), columns, static_cast<float>(update.scale), 1);
  }
  return values;
}

std::vector<float> merge_reshaped(const MergedPart& tensor, NameColumn source, NameColumn target) {
  auto values = merge_reshaped_whole(tensor, source, target);
  if (!tensor.cut) return values;
  const auto& shape = tensor.cut->whole->shape;
  values = taken_rows(std::move(values), shape.size() == 2 ? shape[1] : 1, tensor.cut->rows);
  take_columns(values, shape.back(), tensor.cut->columns);
  return values;
}

}  // namespace

MergedWeights::MergedWeights(const ExportSource& source, NameColumn target)
    : source_column_(source.column), target_(target), products_(source.products), stored_(source.tensors) {
  std::unordered_map<std::string, size_t> by_name;
  for (const auto& weight : *source.weights) {
    const auto update = source.updates.find(weight.rule);
    const auto cut = source.cuts.find(weight.rule);
    const auto [place, is_new] = by_name.try_emplace(weight.rule->name(target), tensors_.size());
    if (is_new) tensors_.emplace_back();
    tensors_[place->second].parts.push_back({weight.rule, weight.tensor, weight.form, update == source.updates.end() ? nullptr : &update->second,
                                          cut == source.cuts.end() ? nullptr : &cut->second});
  }
  for (auto& tensor : tensors_) {
    std::stable_sort(tensor.parts.begin(), tensor.parts.end(), [&](const MergedPart& a, const MergedPart& b) { return a.rule->form(target).first < b.rule->form(target).first; });
  }
}

bool MergedTensor::adapted() const {
  return std::any_of(parts.begin(), parts.end(), [](const MergedPart& part) { return part.update != nullptr; });
}

bool MergedWeights::keeps_bytes(const MergedTensor& tensor, TensorType type) {
  return std::all_of(tensor.parts.begin(), tensor.parts.end(), [&](const MergedPart& part) { return !part.update && !part.cut && part.stored->type == type; });
}

std::span<const std::byte> MergedWeights::bytes(const MergedTensor& tensor, TensorType type, std::span<const float> importance) {
  forget_last();
  last_ = &tensor;
  try {
    return merged_bytes(tensor, type, importance);
  } catch (const UserError& error) {
    fail("exports", "{} (tensor {}, {})", error.what(), name(tensor), tensor.parts.front().stored->file.filename().string());
  }
}

// Its pages of the base would stay in memory until the whole model is there.
void MergedWeights::forget_last() {
  if (!last_ || !stored_) return;
  for (const auto& part : last_->parts) stored_->forget(part.stored->bytes);
}

int64_t MergedWeights::num_matrices(const MergedTensor& tensor) const {
  const auto form = shape(tensor);
  return form.size() == 3 && tensor.parts.size() > 1 ? form[0] : 1;
}

std::span<const std::byte> MergedWeights::merged_bytes(const MergedTensor& tensor, TensorType type, std::span<const float> importance) {
  const auto num_parts = tensor.parts.size(), columns = static_cast<size_t>(shape(tensor).back()), matrices = static_cast<size_t>(num_matrices(tensor));
  if (!importance.empty() && importance.size() != matrices * columns)
    fail("exports", "expected importances of {} matrices of {} columns, got {} — the importance matrix was made for another model", matrices, columns, importance.size());
  if (num_parts == 1) return bytes_of_part(tensor.parts.front(), type, importance);
  const auto of_part = [&](size_t part) { return importance.empty() ? importance : importance.subspan(part * matrices / num_parts * columns, columns); };
  whole_.clear();
  whole_.reserve(static_cast<size_t>(bytes_of(type, shape(tensor)).value()));
  const auto in_turn = static_cast<size_t>(tensor.parts.front().rule->form(target_).interleaved);
  for (size_t part = 0; part < tensor.parts.size(); part += in_turn) {
    const auto bytes = in_turn == 1 ? bytes_of_part(tensor.parts[part], type, of_part(part))
                                    : bytes_in_turn(std::span(tensor.parts).subspan(part, in_turn), type, of_part(part));
    whole_.insert(whole_.end(), bytes.begin(), bytes.end());
  }
  return whole_;
}

// Tensors whose rows stand in turn in the target, each at its phase; transposed, as the target's form says.
std::span<const std::byte> MergedWeights::bytes_in_turn(std::span<const MergedPart> parts, TensorType type, std::span<const float> importance) {
  const auto& shape = parts.front().rule->shape;
  const int64_t rows = shape[0], columns = shape.size() == 2 ? shape[1] : 1, count = static_cast<int64_t>(parts.size());
  std::vector<float> all(static_cast<size_t>(rows * columns * count));
  for (const auto& part : parts) {
    const auto& form = part.rule->form(target_);
    const auto values = merge_reshaped(part, source_column_, target_);
    for (int64_t row = 0; row < rows; ++row) std::copy_n(values.data() + row * columns, columns, all.data() + (row * count + form.phase) * columns);
  }
  if (parts.front().rule->form(target_).transposed) all = transposed(all, rows * count, columns);
  const int64_t width = rows * count;
  buffer_.resize(static_cast<size_t>(bytes_of(type, std::vector<int64_t>{static_cast<int64_t>(all.size()) / width, width}).value()));
  quantize(type, all.data(), static_cast<int64_t>(all.size()) / width, width, buffer_.data(), importance);
  return buffer_;
}

std::optional<FeedbackFactor> MergedWeights::factor_of(const MergedPart& tensor, TensorType type) const {
  if (!products_ || !takes_feedback(type) || !is_linear_weight(*tensor.rule)) return std::nullopt;
  const auto products = products_->of(*tensor.rule);
  if (products.empty()) return std::nullopt;
  return feedback_factor(products, tensor.rule->shape.at(1));
}

std::span<const std::byte> MergedWeights::bytes_of_part(const MergedPart& tensor, TensorType type, std::span<const float> importance) {
  const auto rows = rows_of(tensor, source_column_, target_);
  // Names may differ and layouts still be one: a GGUF base goes back to the very rows it came from.
  const bool same_form = tensor.form == &tensor.rule->form(target_);
  const bool in_place = same_form || !(rows.move() || is_reshaped(tensor, target_));
  if (!tensor.update && !tensor.cut && tensor.stored->type == type && in_place) return tensor.stored->bytes;
  if (is_reshaped(tensor, target_)) {
    auto shape = tensor.rule->shape;
    auto values = taken_rows(merge_reshaped(tensor, source_column_, target_), shape.size() == 2 ? shape[1] : 1, our_row_of_stored(*tensor.rule, target_));
    put_columns(values, stored_column_of_ours(*tensor.rule, target_));
    if (tensor.rule->form(target_).transposed) {
      values = transposed(values, shape[0], shape[1]);
      std::swap(shape[0], shape[1]);
    }
    buffer_.resize(static_cast<size_t>(bytes_of(type, shape).value()));
    quantize(type, values.data(), static_cast<int64_t>(values.size()) / shape.back(), shape.back(), buffer_.data(), importance);
    return buffer_;
  }
  const auto kept_columns = tensor.cut ? tensor.cut->columns : std::vector<int64_t>();
  const int64_t columns = kept_columns.empty() ? rows.columns : static_cast<int64_t>(kept_columns.size());
  const int64_t row_bytes = bytes_of(type, std::vector<int64_t>{columns}).value();
  buffer_.resize(static_cast<size_t>(rows.count * row_bytes));
  const auto factor = factor_of(tensor, type);
  const auto round_block = [&](const float* values, int64_t count, int64_t width, std::span<const float> own_importance, std::byte* blocks) {
    quantize(type, values, count, width, blocks, own_importance);
  };
  const int64_t num_blocks = (rows.count + kBlockRows - 1) / kBlockRows;
  // Blocks of fixed size, each on one thread: the same bytes for any number of threads.
  at::parallel_for(0, num_blocks, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> merged_NC(std::min(kBlockRows, rows.count) * rows.columns);
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kBlockRows, count = std::min(kBlockRows, rows.count - first);
      merged_NC.resize(static_cast<size_t>(count * rows.columns));
      merge_rows(tensor, rows, first, count, merged_NC.data());
      take_columns(merged_NC, rows.columns, kept_columns);
      auto* bytes = buffer_.data() + first * row_bytes;
      if (factor) quantize_with_feedback(type, *factor, merged_NC.data(), count, round_block, bytes);
      else quantize(type, merged_NC.data(), count, columns, bytes, importance);
    }
  });
  return buffer_;
}

}  // namespace graft
