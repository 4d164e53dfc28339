#include "kernels/matrix_product/matrix_product.h"

extern "C" void sgemm_(const char* trans_a, const char* trans_b, const int* m, const int* n, const int* k, const float* alpha,
                       const float* a, const int* lda, const float* b, const int* ldb, const float* beta, float* c, const int* ldc);

namespace graft {

void matrix_product(int64_t m, int64_t n, int64_t k, const Matrix& a, const Matrix& b, float* c, int64_t c_row_stride, float alpha,
                    float beta) {
  if (m == 0 || n == 0) return;
  // Fortran's matrices are column-major: c^T = op(b)^T op(a)^T, and a row-major matrix already is its own transpose there.
  const char* trans_b = b.transposed ? "T" : "N";
  const char* trans_a = a.transposed ? "T" : "N";
  const int rows = static_cast<int>(n), columns = static_cast<int>(m), inner = static_cast<int>(k);
  const int ldb = static_cast<int>(b.row_stride), lda = static_cast<int>(a.row_stride), ldc = static_cast<int>(c_row_stride);
  sgemm_(trans_b, trans_a, &rows, &columns, &inner, &alpha, b.data, &ldb, a.data, &lda, &beta, c, &ldc);
}

}  // namespace graft
