// Plain dense products of float32 row-major matrices on the CPU: MKL's sgemm as LibTorch ships it, which at::mm calls too. Called directly
// because the operands lie in scratch with row strides and because calls from inside at::parallel_for must stay on their thread.
#pragma once
#include <cstdint>

namespace graft {

struct Matrix {         // row-major
  const float* data;
  int64_t row_stride;
  bool transposed = false;
};

// c[m, n] = alpha * op(a)[m, k] * op(b)[k, n] + beta * c. With beta 0 what c holds is not read.
void matrix_product(int64_t m, int64_t n, int64_t k, const Matrix& a, const Matrix& b, float* c, int64_t c_row_stride, float alpha = 1,
                    float beta = 0);

}  // namespace graft
