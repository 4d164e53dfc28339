#include "checkpoints/codecs/int4_layouts.h"

#include "checkpoints/codecs/blocks_of_matrix.h"
#include "checkpoints/codecs/grouped_blocks.h"
#include "kernels/quantized/small_floats.h"

namespace graft {
namespace {

using Bytes = std::vector<std::byte>;

template <typename Block>
Int4Matrix plain_matrix(const std::byte* data, int64_t rows, int64_t columns) {
  constexpr int64_t kGroup = Block::kElements;
  const Blocks<Block> blocks{data, columns};
  Int4Matrix matrix{rows, columns, columns / kGroup, std::vector<uint8_t>(static_cast<size_t>(rows * columns)), {}, {}};
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; column += kGroup) {
      const auto block = blocks.at(row, column);
      matrix.scales.push_back(scale_of(block));
      matrix.zeros.push_back(static_cast<uint8_t>(zero_of(block)));
      for (int64_t i = 0; i < kGroup; ++i) matrix.codes[static_cast<size_t>(row * columns + column + i)] = static_cast<uint8_t>(code_of(block, i));
    }
  }
  return matrix;
}

// Words of eight codes: code(word, i) for each.
template <typename Function>
Bytes words_of(int64_t count, const Function& code) {
  std::vector<uint32_t> words(static_cast<size_t>(count));
  for (int64_t word = 0; word < count; ++word) {
    for (int i = 0; i < 8; ++i) words[static_cast<size_t>(word)] |= static_cast<uint32_t>(code(word, i)) << i * 4;
  }
  return bytes_of_numbers(words);
}

Bytes scales_by_row(const Int4Matrix& matrix) {
  std::vector<uint16_t> scales;
  for (const float scale : matrix.scales) scales.push_back(float_to_bf16(scale));
  return bytes_of_numbers(scales);
}

Bytes scales_by_group(const Int4Matrix& matrix) {
  std::vector<uint16_t> scales;
  for (int64_t group = 0; group < matrix.groups; ++group) {
    for (int64_t row = 0; row < matrix.rows; ++row) scales.push_back(float_to_half(matrix.scales[matrix.of_group(row, group)]));
  }
  return bytes_of_numbers(scales);
}

}  // namespace

Int4Matrix int4_matrix(TensorType type, const std::byte* data, int64_t rows, int64_t columns) {
  switch (type) {
    case TensorType::kI4_32: return plain_matrix<BlockI4<32>>(data, rows, columns);
    case TensorType::kI4_64: return plain_matrix<BlockI4<64>>(data, rows, columns);
    case TensorType::kI4_128: return plain_matrix<BlockI4<128>>(data, rows, columns);
    case TensorType::kI4_32Zero: return plain_matrix<BlockI4Zero<32>>(data, rows, columns);
    case TensorType::kI4_64Zero: return plain_matrix<BlockI4Zero<64>>(data, rows, columns);
    default: return plain_matrix<BlockI4Zero<128>>(data, rows, columns);
  }
}

std::vector<Bytes> compressed_int4_tensors(const Int4Matrix& matrix, bool with_zeros) {
  std::vector<Bytes> tensors = {words_of(matrix.rows * matrix.columns / 8, [&](int64_t word, int i) { return matrix.codes[static_cast<size_t>(word * 8 + i)]; }), scales_by_row(matrix),
                                bytes_of_numbers(std::vector<int64_t>{matrix.rows, matrix.columns})};
  if (!with_zeros) return tensors;
  tensors.push_back(words_of(ceil_divided(matrix.rows, 8) * matrix.groups, [&](int64_t word, int i) {
    const int64_t row = word / matrix.groups * 8 + i;
    return row < matrix.rows ? matrix.zeros[matrix.of_group(row, word % matrix.groups)] : uint8_t{8};   // 8: what compressed-tensors pads with, a zero point of 0
  }));
  return tensors;
}

std::vector<Bytes> gptq_tensors(const Int4Matrix& matrix) {
  const int64_t rows = matrix.rows, words_of_group = rows / 8, group = matrix.columns / matrix.groups;
  std::vector<int32_t> order;
  for (int64_t column = 0; column < matrix.columns; ++column) order.push_back(static_cast<int32_t>(column / group));
  return {words_of(matrix.columns / 8 * rows, [&](int64_t word, int i) { return matrix.codes[static_cast<size_t>(word % rows * matrix.columns + word / rows * 8 + i)]; }),
          words_of(matrix.groups * words_of_group, [&](int64_t word, int i) { return (matrix.zeros[matrix.of_group(word % words_of_group * 8 + i, word / words_of_group)] - 1) & 15; }),
          scales_by_group(matrix), bytes_of_numbers(order)};
}

std::vector<Bytes> awq_tensors(const Int4Matrix& matrix) {
  const int64_t words_of_line = matrix.rows / 8;
  const auto row_of = [&](int64_t word, int i) { return word % words_of_line * 8 + kAwqRows[i]; };
  return {words_of(matrix.columns * words_of_line, [&](int64_t word, int i) { return matrix.codes[static_cast<size_t>(row_of(word, i) * matrix.columns + word / words_of_line)]; }),
          words_of(matrix.groups * words_of_line, [&](int64_t word, int i) { return matrix.zeros[matrix.of_group(row_of(word, i), word / words_of_line)]; }), scales_by_group(matrix)};
}

}  // namespace graft
