#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

#include <cmath>

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "kernels/common/error.h"
#include "kernels/common/operator_path.h"
#include "kernels/elementwise/typed_rows.h"
#include "kernels/frozen_product/frozen_product.h"
#include "kernels/matrix_product/operands.h"
#include "kernels/scratch/scratch.h"

namespace graft {
namespace {

// Calls f(first row of the head, piece as a part) in order.
template <typename Function>
void for_pieces(const HeadPieces& head, const Function& f) {
  int64_t first = 0;
  for (int64_t index = 0; index < head.num_pieces(); ++index) {
    const auto& weight = head.piece(index);
    const FrozenPart part{&weight};
    f(first, part);
    first += weight.rows();
  }
}

// Logits of rows [first, first + count).
void logits_of(const at::Tensor& hidden_MC, int64_t first, int64_t count, const HeadPieces& head, float* logits_BV, int64_t row_stride) {
  const int64_t inputs = head.columns();
  Scratch scratch;
  const auto multiply = [&](const auto* hidden) {
    for_pieces(head, [&](int64_t row, const FrozenPart& part) { frozen_product(count, hidden, inputs, {&part, 1}, logits_BV + row, row_stride); });
  };
  if (operands_are_bf16(hidden_MC)) {
    multiply(static_cast<const uint16_t*>(hidden_MC.const_data_ptr()) + first * inputs);
  } else {
    float* hidden = scratch.floats(count * inputs);
    visit_elements(hidden_MC, [&](const auto* source) { rows::to_float(source + first * inputs, count * inputs, hidden); });
    multiply(static_cast<const float*>(hidden));
  }
  if (head.softcap() == 0) return;
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) rows::soft_cap(logits_BV + b * row_stride, head.rows(), 1, static_cast<float>(head.softcap()));
  });
}

int64_t rows_of_block(int64_t num_rows, int64_t vocab, int64_t buffer_bytes) {
  return std::clamp<int64_t>(buffer_bytes / (scratch_row_stride(vocab) * 4), 1, std::max<int64_t>(num_rows, 1));
}

}  // namespace

int64_t cross_entropy_blocks(int64_t num_rows, int64_t vocab_size, int64_t buffer_bytes) {
  const int64_t block = rows_of_block(num_rows, vocab_size, buffer_bytes);
  return (num_rows + block - 1) / block;
}

CrossEntropyResult linear_cross_entropy(const at::Tensor& hidden_MC, const LinearHead& head, std::span<const int32_t> labels_M,
                                        std::span<const float> weights_M, const CrossEntropyOptions& options) {
  return linear_cross_entropy(hidden_MC, WholeHead(head), labels_M, weights_M, options);
}

CrossEntropyResult linear_cross_entropy(const at::Tensor& hidden_MC, const HeadPieces& head, std::span<const int32_t> labels_M,
                                        std::span<const float> weights_M, const CrossEntropyOptions& options) {
  const int64_t num_rows = hidden_MC.size(0), inputs = head.columns(), vocab = head.rows();
  if (hidden_MC.size(1) != inputs || static_cast<int64_t>(labels_M.size()) != num_rows ||
      (!weights_M.empty() && weights_M.size() != labels_M.size())) {
    fail("kernels", "linear_cross_entropy: expected hidden [{}, {}] with one label and weight a row, got {} columns, {} labels, {} weights",
         num_rows, inputs, hidden_MC.size(1), labels_M.size(), weights_M.size());
  }
  for (const auto label : labels_M) {
    if (label < 0 || label >= vocab) fail("kernels", "linear_cross_entropy: expected labels from 0 to {}, got {}", vocab - 1, label);
  }
  if (!takes_fast_path(hidden_MC)) return linear_cross_entropy_reference(hidden_MC, head, labels_M, weights_M, options);
  CrossEntropyResult result;
  result.losses_M.resize(num_rows);
  result.correct_M.resize(num_rows);
  if (options.want_gradient) result.gradient_MC = at::empty_like(hidden_MC);
  const int64_t stride = scratch_row_stride(vocab);
  const int64_t block = rows_of_block(num_rows, vocab, options.buffer_bytes);
  const bool bf16 = operands_are_bf16(hidden_MC);
  Scratch scratch;
  float* logits = scratch.floats(std::min(block, num_rows) * stride);
  float* gradient = scratch.floats(std::min(block, num_rows) * inputs);
  for (int64_t first = 0; first < num_rows; first += block) {
    const int64_t count = std::min(block, num_rows - first);
    logits_of(hidden_MC, first, count, head, logits, stride);
    at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> capped(head.softcap() > 0 && options.want_gradient ? vocab : 0);
      for (int64_t b = begin; b < end; ++b) {
        float* row = logits + b * stride;
        const int32_t label = labels_M[first + b];
        const float maximum = rows::maximum(row, vocab), at_label = row[label];
        std::copy_n(row, capped.size(), capped.data());
        const float sum = rows::exp_and_sum(row, vocab, 1, maximum);
        result.losses_M[first + b] = maximum + std::log(sum) - at_label;
        result.correct_M[first + b] = at_label >= maximum;
        if (!options.want_gradient) continue;
        const float weight = (weights_M.empty() ? 1.0f : weights_M[first + b]) * static_cast<float>(options.gradient_scale);
        rows::scale(row, vocab, weight / sum);
        row[label] -= weight;
        if (!capped.empty()) rows::soft_cap_backward(row, capped.data(), vocab, static_cast<float>(head.softcap()));
        if (bf16) rows::from_float_in_place(row, vocab);
      }
    });
    if (!options.want_gradient) continue;
    const auto multiply = [&](const auto* dlogits, int64_t row_stride) {
      for_pieces(head, [&](int64_t row, const FrozenPart& part) {
        frozen_product_backward(count, dlogits + row, row_stride, {&part, 1}, gradient, inputs, /*accumulate=*/row > 0);
      });
    };
    if (bf16) {
      multiply(reinterpret_cast<const uint16_t*>(logits), 2 * stride);
    } else {
      multiply(static_cast<const float*>(logits), stride);
    }
    visit_elements(result.gradient_MC, [&](auto* target) { rows::from_float(gradient, count * inputs, target + first * inputs); });
  }
  for (int64_t i = 0; i < num_rows; ++i) {
    result.weighted_loss += static_cast<double>(result.losses_M[i]) * (weights_M.empty() ? 1.0 : weights_M[i]);
  }
  return result;
}

at::Tensor head_logits(const at::Tensor& hidden_MC, const LinearHead& head) {
  auto logits = at::empty({hidden_MC.size(0), head.rows()}, at::kFloat);
  logits_of(hidden_MC, 0, hidden_MC.size(0), WholeHead(head), logits.data_ptr<float>(), head.rows());
  return logits;
}

}  // namespace graft
