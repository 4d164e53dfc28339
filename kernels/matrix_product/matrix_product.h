// Plain dense products of row-major matrices on the CPU, accumulated in float32.
#pragma once
#include <cstdint>

namespace graft {

template <typename Element>   // float, or uint16_t for bfloat16
struct MatrixOf {             // row-major
  const Element* data;
  int64_t row_stride;
  bool transposed = false;
};
using Matrix = MatrixOf<float>;
using Bf16Matrix = MatrixOf<uint16_t>;

// c[m, n] = alpha * op(a)[m, k] * op(b)[k, n] + beta * c. With beta 0 what c holds is not read. MKL's sgemm as LibTorch ships it, which at::mm calls too;
// called directly because the operands lie in scratch with row strides and because calls from inside at::parallel_for must stay on their thread.
void matrix_product(int64_t m, int64_t n, int64_t k, const Matrix& a, const Matrix& b, float* c, int64_t c_row_stride, float alpha = 1,
                    float beta = 0);

// c[m, n] = op(a) op(b), or c += op(a) op(b): the tiles of frozen_product over packed copies of b (and of a, where it is transposed). An element is the sum,
// in order, of chains of 256 multiply-adds along k, or of AMX's steps (bf16_panel_amx.h): rows beside it and threads do not change a bit.
void matrix_product(int64_t m, int64_t n, int64_t k, const Bf16Matrix& a, const Bf16Matrix& b, float* c, int64_t c_row_stride, bool accumulate = false);

// destination[column][row] = source[row][column] of bfloat16; a column of the destination is zero up to the next even number of rows.
void transpose_bf16(const uint16_t* source, int64_t source_stride, int64_t rows, int64_t columns, uint16_t* destination, int64_t destination_stride);

}  // namespace graft
