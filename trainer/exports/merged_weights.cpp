#include "trainer/exports/merged_weights.h"

#include <algorithm>
#include <cstring>

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

Rows rows_of(const MergedTensor& tensor, NameColumn source, NameColumn target) {
  Rows rows;
  rows.ours_of_target = our_row_of_stored(*tensor.rule, target);
  rows.stored_of_ours = stored_row_of_ours(*tensor.rule, source);
  const auto& shape = tensor.stored->shape;
  if (shape.size() == 1) {   // a bias moves with its matrix's rows; other vectors are one row
    rows.count = rows.move() ? shape[0] : 1;
    rows.columns = rows.move() ? 1 : shape[0];
  } else {
    rows.count = shape.at(0);
    rows.columns = tensor.stored->num_elements() / std::max<int64_t>(rows.count, 1);
  }
  return rows;
}

// Rows first .. first + count of the target, float32.
void merge_rows(const MergedTensor& tensor, const Rows& rows, int64_t first, int64_t count, float* merged_NC) {
  const auto& stored = *tensor.stored;
  const int64_t row_bytes = bytes_of(stored.type, std::vector<int64_t>{rows.columns}).value();
  for (int64_t r = 0; r < count; ++r) {
    dequantize(stored.type, stored.bytes.data() + rows.stored(first + r) * row_bytes, rows.columns, merged_NC + r * rows.columns);
  }
  if (!tensor.update) return;
  const auto& update = *tensor.update;
  std::vector<float> b_NR(count * update.rank);
  for (int64_t r = 0; r < count; ++r) {
    std::copy_n(update.b_OR + rows.ours(first + r) * update.rank, update.rank, b_NR.data() + r * update.rank);
  }
  matrix_product(count, rows.columns, update.rank, {b_NR.data(), update.rank}, {update.a_RC, rows.columns}, merged_NC, rows.columns,
                 static_cast<float>(update.scale), 1);
}

// Whether `source` and `target` hold a tensor otherwise than by the order of its rows.
bool is_reshaped(const WeightRule& rule, NameColumn source, NameColumn target) {
  const auto &from = rule.form(source), &to = rule.form(target);
  return from.transposed || to.transposed || from.offset != to.offset;
}

std::vector<float> transposed(const std::vector<float>& values, int64_t rows, int64_t columns) {
  std::vector<float> result(values.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) result[c * rows + r] = values[r * columns + c];
  }
  return result;
}

// A tensor that is transposed or offset in one of the two columns, as a whole: small ones only (gpt2's matrices, gemma's norms).
std::vector<float> merge_reshaped(const MergedTensor& tensor, NameColumn source, NameColumn target) {
  const auto& rule = *tensor.rule;
  const auto &from = rule.form(source), &to = rule.form(target);
  std::vector<float> values(static_cast<size_t>(tensor.stored->num_elements()));
  dequantize(tensor.stored->type, tensor.stored->bytes.data(), tensor.stored->num_elements(), values.data());
  for (auto& value : values) value += to.offset - from.offset;
  if (rule.shape.size() != 2) return values;
  const int64_t rows = rule.shape[0], columns = rule.shape[1];
  if (from.transposed) values = transposed(values, columns, rows);
  if (tensor.update) {
    const auto& update = *tensor.update;
    matrix_product(rows, columns, update.rank, {update.b_OR, update.rank}, {update.a_RC, columns}, values.data(), columns, static_cast<float>(update.scale), 1);
  }
  return to.transposed ? transposed(values, rows, columns) : values;
}

}  // namespace

MergedWeights::MergedWeights(const ExportSource& source, NameColumn target) : source_column_(source.column), target_(target) {
  for (const auto& weight : *source.weights) {
    const auto update = source.updates.find(weight.rule);
    tensors_.push_back({weight.rule, weight.tensor, update == source.updates.end() ? nullptr : &update->second});
  }
}

std::span<const std::byte> MergedWeights::bytes(const MergedTensor& tensor, TensorType type) {
  const auto rows = rows_of(tensor, source_column_, target_);
  // Names may differ and layouts still be one: a GGUF base goes back to the very rows it came from.
  const bool in_place = source_column_ == target_ || !(rows.move() || is_reshaped(*tensor.rule, source_column_, target_));
  if (keeps_bytes(tensor, type) && in_place) return tensor.stored->bytes;
  if (is_reshaped(*tensor.rule, source_column_, target_)) {
    const auto values = merge_reshaped(tensor, source_column_, target_);
    const auto shape = this->shape(tensor);
    buffer_.resize(static_cast<size_t>(bytes_of(type, shape).value()));
    quantize(type, values.data(), static_cast<int64_t>(values.size()) / shape.back(), shape.back(), buffer_.data());
    return buffer_;
  }
  const int64_t row_bytes = bytes_of(type, std::vector<int64_t>{rows.columns}).value();
  buffer_.resize(static_cast<size_t>(rows.count * row_bytes));
  const int64_t num_blocks = (rows.count + kBlockRows - 1) / kBlockRows;
  try {
    // Blocks of fixed size, each on one thread: the same bytes for any number of threads.
    at::parallel_for(0, num_blocks, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> merged_NC(std::min(kBlockRows, rows.count) * rows.columns);
      for (int64_t block = begin; block < end; ++block) {
        const int64_t first = block * kBlockRows, count = std::min(kBlockRows, rows.count - first);
        merge_rows(tensor, rows, first, count, merged_NC.data());
        quantize(type, merged_NC.data(), count, rows.columns, buffer_.data() + first * row_bytes);
      }
    });
  } catch (const UserError& error) {
    fail("exports", "{} (tensor {}, {})", error.what(), name(tensor), tensor.stored->file.filename().string());
  }
  return buffer_;
}

}  // namespace graft
