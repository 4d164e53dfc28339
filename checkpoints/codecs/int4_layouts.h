// INT4 blocks as the tensors of compressed-tensors, GPTQ and AWQ; layouts as in grouped_blocks.h, in the order of hub_tensors().
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/quantized/tensor_type.h"

namespace graft {

// One plain form for all: a code, a scale and a zero point for each place.
struct Int4Matrix {
  int64_t rows, columns, groups;
  std::vector<uint8_t> codes;    // [rows, columns]
  std::vector<float> scales;     // [rows, groups]
  std::vector<uint8_t> zeros;
  size_t of_group(int64_t row, int64_t group) const { return static_cast<size_t>(row * groups + group); }
};

// blocks: [rows, columns] of a type of INT4.
Int4Matrix int4_matrix(TensorType type, const std::byte* blocks, int64_t rows, int64_t columns);

std::vector<std::vector<std::byte>> compressed_int4_tensors(const Int4Matrix& matrix, bool with_zeros);
std::vector<std::vector<std::byte>> gptq_tensors(const Int4Matrix& matrix);
std::vector<std::vector<std::byte>> awq_tensors(const Int4Matrix& matrix);

}  // namespace graft
