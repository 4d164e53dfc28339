// Launch arguments of products with matrices that are stored as quantised blocks (forms: kernels/quantized/block_forms.h). Device memory; a matrix's blocks
// and `values` begin at multiples of 16 bytes, rows of blocks lie one after another.
//
//   DequantizeMatrix    values = W                          bound by memory: one read of the blocks, one write of the values
//   QuantizedProduct    y = x W^T, or x W (transposed)      W is decoded on its way into the product: for few rows of x, bound by the one read of the blocks
//
// W is rounded to the type of the rows. Sums are float32 and have one order: the same bits in every run.
#pragma once
#include <cstdint>

#include "kernels/cuda/row_type.cuh"
#include "kernels/quantized/tensor_type.h"

namespace graft::cuda {

struct QuantizedMatrix {
  TensorType form;
  int64_t rows, columns;
  const void* blocks;
};

struct DequantizeMatrix {
  QuantizedMatrix matrix;
  RowType type;
  void* values;             // [rows, columns]
};

// Rows of x, outputs and inner dimension of a tile: what a block has, and goes through at a time.
constexpr int kQuantizedTile = 64;

struct QuantizedProduct {
  QuantizedMatrix matrix;
  bool transposed;          // x is [N, rows] and y [N, columns], else the other way round
  bool accumulate;          // y +=, rounded once
  RowType type;
  int64_t num_rows;
  const void* x;
  int64_t x_stride;
  void* y;
  int64_t y_stride;
  int num_splits, split;    // blocks that share a sum, and the tiles of the inner dimension that each of them goes through (quantized_product_plan.h)
  float* partials;          // [splits, N, outputs] where there are several splits
};

inline int64_t quantized_outputs(const QuantizedProduct& product) { return product.transposed ? product.matrix.columns : product.matrix.rows; }
inline int64_t quantized_inner(const QuantizedProduct& product) { return product.transposed ? product.matrix.rows : product.matrix.columns; }

// Null, or what is wrong: the driver's words, or a form that has no kernel. `stream` is a cudaStream_t.
const char* launch(const DequantizeMatrix& arguments, void* stream);
const char* launch(const QuantizedProduct& arguments, void* stream);

}  // namespace graft::cuda
