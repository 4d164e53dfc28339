// The element type of a tensor as launch arguments name it.
#pragma once
#include <ATen/core/Tensor.h>

#include "kernels/cuda/row_type.cuh"

namespace graft {

inline bool has_row_type(const at::Tensor& x) { return x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kHalf; }

inline cuda::RowType row_type(const at::Tensor& x) {
  TORCH_INTERNAL_ASSERT(has_row_type(x), "kernels take float32, bfloat16 or float16, got ", x.scalar_type());
  return x.scalar_type() == at::kFloat ? cuda::RowType::kFloat32 : x.scalar_type() == at::kBFloat16 ? cuda::RowType::kBfloat16 : cuda::RowType::kFloat16;
}

}  // namespace graft
