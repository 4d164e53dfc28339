// The type of products' operands on the CPU: uint16_t (bfloat16) where a tensor is bfloat16 and the machine multiplies that, else float.
#pragma once
#include <type_traits>

#include <ATen/core/Tensor.h>

#include "kernels/matrix_product/bf16_tile_product.h"
#include "kernels/matrix_product/matrix_product.h"

namespace graft {

inline bool operands_are_bf16(const at::Tensor& x) { return x.scalar_type() == at::kBFloat16 && multiplies_in_bf16(); }

template <typename Operand>
inline constexpr at::ScalarType kOperandType = std::is_same_v<Operand, float> ? at::kFloat : at::kBFloat16;

// c = op(a) op(b), or c += op(a) op(b)
template <typename Operand>
void operand_product(int64_t m, int64_t n, int64_t k, const MatrixOf<Operand>& a, const MatrixOf<Operand>& b, float* c, int64_t c_row_stride,
                     bool accumulate = false) {
  if constexpr (std::is_same_v<Operand, float>) {
    matrix_product(m, n, k, a, b, c, c_row_stride, 1, accumulate ? 1 : 0);
  } else {
    matrix_product(m, n, k, a, b, c, c_row_stride, accumulate);
  }
}

}  // namespace graft
