#include "kernels/linear_head/head_products_cpu.h"

#include <algorithm>

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include "kernels/elementwise/typed_rows.h"
#include "kernels/frozen_product/frozen_product.h"
#include "kernels/matrix_product/operands.h"
#include "kernels/scratch/scratch.h"

namespace graft {

int64_t rows_of_block(int64_t num_rows, int64_t row_bytes, int64_t buffer_bytes) {
  const int64_t most = std::clamp<int64_t>(buffer_bytes / row_bytes, 1, std::max<int64_t>(num_rows, 1)), blocks = (num_rows + most - 1) / most;
  return blocks < 2 ? most : std::min(most, ((num_rows + blocks - 1) / blocks + 15) / 16 * 16);
}

namespace head_cpu {

void logits(const at::Tensor& hidden_MC, int64_t first, int64_t count, const HeadPieces& head, float* logits_BV, int64_t row_stride) {
  const int64_t inputs = head.columns();
  Scratch scratch;
  const auto multiply = [&](const auto* hidden) {
    for_pieces(head, [&](int64_t row, const FrozenWeight& piece) {
      const FrozenPart part{&piece};
      frozen_product(count, hidden, inputs, {&part, 1}, logits_BV + row, row_stride);
    });
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

void finish_gradient(const at::Tensor& hidden_MC, const HeadPieces& head, const float* logits, float* gradient) {
  if (head.softcap() > 0) rows::soft_cap_backward(gradient, logits, head.rows(), static_cast<float>(head.softcap()));
  if (operands_are_bf16(hidden_MC)) rows::from_float_in_place(gradient, head.rows());
}

void hidden_gradient(const float* gradient_BV, int64_t row_stride, int64_t first, int64_t count, const HeadPieces& head, const at::Tensor& gradient_MC) {
  const int64_t inputs = head.columns();
  Scratch scratch;
  float* gradient = scratch.floats(count * inputs);
  const auto multiply = [&](const auto* rows, int64_t stride) {
    for_pieces(head, [&](int64_t row, const FrozenWeight& piece) {
      const FrozenPart part{&piece};
      frozen_product_backward(count, rows + row, stride, {&part, 1}, gradient, inputs, /*accumulate=*/row > 0);
    });
  };
  if (operands_are_bf16(gradient_MC)) {
    multiply(reinterpret_cast<const uint16_t*>(gradient_BV), 2 * row_stride);
  } else {
    multiply(gradient_BV, row_stride);
  }
  visit_elements(gradient_MC, [&](auto* target) { rows::from_float(gradient, count * inputs, target + first * inputs); });
}

}  // namespace head_cpu

at::Tensor head_logits(const at::Tensor& hidden_MC, const LinearHead& head) {
  auto logits = at::empty({hidden_MC.size(0), head.rows()}, at::kFloat);
  head_cpu::logits(hidden_MC, 0, hidden_MC.size(0), WholeHead(head), logits.data_ptr<float>(), head.rows());
  return logits;
}

}  // namespace graft
