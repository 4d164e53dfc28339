// Products with frozen weights on a device, in the form they lie there: blocks are decoded in the product where rows are few, else once into scratch
// (quantized_product_plan.h); plain copies are ATen's products.
//
//   frozen_matmul              y [N, O] = x [N, C] W^T, or y += where `accumulate`
//   frozen_matmul_transposed   dx [N, C] = dy [N, O] W, or dx += where `accumulate`
//
// x, y, dy and dx: float32, bfloat16 or float16, one type and device, elements of a row beside each other. W is rounded to that type; sums are float32. No
// gradients: callers are operators that have their own. UserError, before anything is launched, where shapes or types do not fit.
#pragma once
#include <ATen/core/Tensor.h>

#include "kernels/frozen_weight/frozen_weight.h"

namespace graft {

void frozen_matmul(const at::Tensor& x_NC, const FrozenWeight& weight, at::Tensor& y_NO, bool accumulate = false);
void frozen_matmul_transposed(const at::Tensor& dy_NO, const FrozenWeight& weight, at::Tensor& dx_NC, bool accumulate = false);

// The weight's blocks on `device` decoded there by a kernel; undefined where no kernel runs or none has this type of rows.
at::Tensor dequantized(const FrozenWeight& weight, at::ScalarType type, c10::Device device);

}  // namespace graft
