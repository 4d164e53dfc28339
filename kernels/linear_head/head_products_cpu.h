// Products with a head on the CPU's fast path, a block of rows at a time. Rows of logits are float32 at a stride of scratch_row_stride(V).
#pragma once
#include <ATen/core/Tensor.h>

#include "kernels/linear_head/linear_head.h"

namespace graft::head_cpu {

// Logits of rows [first, first + count), the softcap applied.
void logits(const at::Tensor& hidden_MC, int64_t first, int64_t count, const HeadPieces& head, float* logits_BV, int64_t row_stride);

// Of a row whose logits became their gradient: through the softcap (`logits`: what it gave; not looked at without one), then in the type of the next product.
void finish_gradient(const at::Tensor& hidden_MC, const HeadPieces& head, const float* logits, float* gradient);

// gradient_MC[first + b] = gradient_BV[b] W, for rows that finish_gradient() made.
void hidden_gradient(const float* gradient_BV, int64_t row_stride, int64_t first, int64_t count, const HeadPieces& head, const at::Tensor& gradient_MC);

}  // namespace graft::head_cpu
