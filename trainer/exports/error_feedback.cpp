#include "trainer/exports/error_feedback.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <ATen/ops/cholesky_inverse.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/linalg_cholesky.h>

#include "checkpoints/codecs/blocks_of_matrix.h"
#include "kernels/common/error.h"
#include "kernels/matrix_product/matrix_product.h"
#include "kernels/quantized/block_forms.h"
#include "kernels/quantized/dequantize.h"

namespace graft {
namespace {

constexpr double kDamping = 0.01;   // of the mean of the diagonal

// Rounds the columns of a group once more, one by one at the scale that the block has, and answers each error within the group. values become what was rounded,
// errors[j] what later columns answer: (value - rounded) / U_jj.
template <typename Block>
void round_columns(const float* upper, int64_t stride, float* values, float* errors, Block& block) {
  const float scale = scale_of(block);
  const int zero = zero_of(block);
  for (int j = 0; j < Block::kElements; ++j) {
    const float* row = upper + j * stride;
    const int code = static_cast<int>(std::clamp(std::nearbyint(values[j] / scale) + static_cast<float>(zero), 0.0F, 15.0F));
    const float rounded = static_cast<float>(code - zero) * scale;
    errors[j] = (values[j] - rounded) / row[j];
    values[j] = rounded;
    for (int later = j + 1; later < Block::kElements; ++later) values[later] -= errors[j] * row[later];
    uint8_t& byte = block.nibbles[j / 32 * 16 + j % 16];
    const int shift = j % 32 / 16 * 4;
    byte = static_cast<uint8_t>((byte & ~(15 << shift)) | code << shift);
  }
}

template <typename Block>
constexpr bool kIsInt4 = requires(const Block& block) { scale_of(block); };

// errors U_BB = differences, solved from the first column on.
void solve(const float* upper, int64_t stride, int64_t width, float* differences) {
  for (int64_t j = 0; j < width; ++j) {
    differences[j] /= upper[j * stride + j];
    for (int64_t later = j + 1; later < width; ++later) differences[later] -= differences[j] * upper[j * stride + later];
  }
}

// One block of every row: its bytes behind `to`, what the others answer in errors_RB.
template <typename Block>
void round_block(TensorType type, const FeedbackFactor& factor, int64_t first, float* values, int64_t rows, const BlockQuantizer& quantizer, std::byte* to, int64_t row_bytes,
                 std::vector<float>& errors_RB) {
  constexpr int64_t kWidth = Block::kElements;
  const int64_t columns = factor.columns;
  const float* upper = factor.upper_CC.data() + first * columns + first;
  std::vector<float> own(static_cast<size_t>(rows * kWidth));
  std::vector<Block> blocks(static_cast<size_t>(rows));
  for (int64_t row = 0; row < rows; ++row) std::copy_n(values + row * columns + first, kWidth, own.data() + row * kWidth);
  quantizer(own.data(), rows, kWidth, factor.importance_of(first, kWidth), reinterpret_cast<std::byte*>(blocks.data()));
  std::vector<float> rounded(static_cast<size_t>(kWidth));
  for (int64_t row = 0; row < rows; ++row) {
    auto& block = blocks[static_cast<size_t>(row)];
    float *before = own.data() + row * kWidth, *errors = errors_RB.data() + row * kWidth;
    if constexpr (kIsInt4<Block>) {
      round_columns(upper, columns, before, errors, block);
    } else {
      dequantize(type, reinterpret_cast<const std::byte*>(&block), kWidth, rounded.data());
      for (int64_t j = 0; j < kWidth; ++j) errors[j] = before[j] - rounded[static_cast<size_t>(j)];
      std::copy(rounded.begin(), rounded.end(), before);
      solve(upper, columns, kWidth, errors);
    }
    std::copy_n(before, kWidth, values + row * columns + first);
    std::memcpy(to + row * row_bytes, &block, sizeof block);
  }
}

}  // namespace

std::vector<float> FeedbackFactor::importance_of(int64_t first, int64_t count) const {
  // The block's part of H less what the later columns take over is (U_BB^T U_BB)^-1; a column of U_BB^-1 at a time, the squares of its rows add up to the diagonal.
  std::vector<float> importance(static_cast<size_t>(count)), inverse(static_cast<size_t>(count));
  for (int64_t column = 0; column < count; ++column) {
    for (int64_t row = column; row >= 0; --row) {
      double sum = row == column ? 1 : 0;
      for (int64_t k = row + 1; k <= column; ++k) sum -= static_cast<double>(upper_CC[static_cast<size_t>((first + row) * columns + first + k)]) * inverse[static_cast<size_t>(k)];
      inverse[static_cast<size_t>(row)] = static_cast<float>(sum / upper_CC[static_cast<size_t>((first + row) * columns + first + row)]);
      importance[static_cast<size_t>(row)] += inverse[static_cast<size_t>(row)] * inverse[static_cast<size_t>(row)];
    }
  }
  return importance;
}

FeedbackFactor feedback_factor(std::span<const double> products, int64_t columns) {
  if (static_cast<int64_t>(products.size()) != columns * columns) fail("exports", "expected products of {} columns, got {} numbers — they belong to another matrix", columns, products.size());
  auto damped = at::from_blob(const_cast<double*>(products.data()), {columns, columns}, at::TensorOptions(at::kDouble)).clone();   // only read
  auto diagonal = damped.diagonal();
  const double mean = diagonal.mean().item<double>();
  diagonal.add_(mean > 0 ? kDamping * mean : 1.0);
  const auto upper = at::linalg_cholesky(at::cholesky_inverse(at::linalg_cholesky(damped)), true).to(at::kFloat).contiguous();
  const float* first = upper.const_data_ptr<float>();
  return {columns, std::vector<float>(first, first + columns * columns)};
}

bool takes_feedback(TensorType type) {
  const auto& layout = info(type);
  return layout.quantized && layout.block_bytes < layout.block_elements;
}

void quantize_with_feedback(TensorType type, const FeedbackFactor& factor, float* values, int64_t rows, const BlockQuantizer& quantizer, std::byte* destination) {
  const auto& layout = info(type);
  const int64_t columns = factor.columns, width = layout.block_elements, row_bytes = columns / width * layout.block_bytes;
  std::vector<float> errors_RB(static_cast<size_t>(rows * width));
  for (int64_t first = 0; first < columns; first += width) {
    for_block_form(type, [&](auto form) {
      round_block<typename decltype(form)::Block>(type, factor, first, values, rows, quantizer, destination + first / width * layout.block_bytes, row_bytes, errors_RB);
    });
    const int64_t next = first + width;
    if (next < columns) matrix_product(rows, columns - next, width, {errors_RB.data(), width}, {factor.upper_CC.data() + first * columns + next, columns}, values + next, columns, -1, 1);
  }
}

}  // namespace graft
