// Tensors of bfloat16 or float32 as rows of float32, and back.
#pragma once
#include <ATen/core/Tensor.h>

#include "kernels/elementwise/rows_cpu.h"

namespace graft {

// The type of statistics, sums and softmax where values are of `type` (DESIGN section 3, types of numbers).
inline at::ScalarType wide_type(at::ScalarType type) { return type == at::kBFloat16 || type == at::kHalf ? at::kFloat : type; }

// visit(tensor, f): f(pointer) with uint16_t* (bfloat16) or float*.
template <typename Function>
decltype(auto) visit_elements(const at::Tensor& tensor, Function&& function) {
  TORCH_INTERNAL_ASSERT(tensor.is_contiguous(), "operator needs a contiguous tensor");
  if (tensor.scalar_type() == at::kBFloat16) return function(static_cast<uint16_t*>(tensor.data_ptr()));
  TORCH_INTERNAL_ASSERT(tensor.scalar_type() == at::kFloat, "operator needs bfloat16 or float32, got ", tensor.scalar_type());
  return function(static_cast<float*>(tensor.data_ptr()));
}

}  // namespace graft
