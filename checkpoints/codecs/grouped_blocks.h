// Weights whose files hold codes and scales in tensors of their own, as rows of blocks that carry their scales (kernels/quantized/block_layouts.h): no value
// changes. A copy in memory, little larger than the file's tensors: FP8 and INT8 by 6 %, NF4 by 9 % (its doubly quantised statistics lie there decoded), NVFP4 by
// a third, INT4 by nothing in symmetric groups with bfloat16 scales, by 2 % (groups of 128) to 8 % (of 32) with zero points or float16 scales.
// UserError where sizes do not fit each other, a block would be cut, or a group is none that there are blocks for. `name` is the tensor's, for messages.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/quantized/tensor_type.h"

namespace graft {

struct GroupedBlocks {
  TensorType type;
  std::vector<std::byte> bytes;   // [rows, columns] of `type`
};

// w = e4m3(code) * scale or, of INT8, code * scale, with a scale for each [scale_rows, scale_columns] of W, the last ones cut: 128 x 128 (weight_scale_inv of
// DeepSeek's files, weight_scale of compressed-tensors' block strategy), or 1 x columns (a scale for each output channel), or the whole of W.
GroupedBlocks fp8_blocks(std::string_view name, int64_t rows, int64_t columns, std::span<const uint8_t> codes, int64_t scale_rows, int64_t scale_columns,
                         std::span<const float> scales);
GroupedBlocks int8_blocks(std::string_view name, int64_t rows, int64_t columns, std::span<const int8_t> codes, int64_t scale_rows, int64_t scale_columns,
                          std::span<const float> scales);

// INT4, w = (q - zero) * scale, in groups of `group` columns: a multiple of 32, or all of them. Scales of bfloat16 or float16.
//
// compressed-tensors (pack-quantized): words [rows, columns / 8] with eight codes q + 8 of neighbours, the first in the lowest bits; scales
// [rows, columns / group]; zero_points [rows / 8 rounded up, columns / group], zero + 8 packed along the rows, or empty.
GroupedBlocks int4_blocks(std::string_view name, int64_t rows, int64_t columns, int64_t group, std::span<const uint32_t> words, std::span<const float> scales,
                          std::span<const uint32_t> zero_points);
// GPTQ: words [columns / 8, rows], eight codes along the columns; zero_points [columns / group, rows / 8], eight along the rows, each less `zero_offset` (1 in the
// format "gptq", 0 in "gptq_v2"); scales [columns / group, rows].
GroupedBlocks gptq_blocks(std::string_view name, int64_t rows, int64_t columns, int64_t group, std::span<const uint32_t> words, std::span<const float> scales,
                          std::span<const uint32_t> zero_points, int zero_offset);
// AWQ ("gemm"): words [columns, rows / 8] and zero_points [columns / group, rows / 8], nibble i of a word is row 0, 2, 4, 6, 1, 3, 5, 7 of its eight; scales
// [columns / group, rows].
GroupedBlocks awq_blocks(std::string_view name, int64_t rows, int64_t columns, int64_t group, std::span<const uint32_t> words, std::span<const float> scales,
                         std::span<const uint32_t> zero_points);
inline constexpr int kAwqRows[8] = {0, 2, 4, 6, 1, 3, 5, 7};

// FP4 of compressed-tensors: packed [rows, columns / 2], even columns in the low nibble.
// NVFP4: scales [rows, columns / 16] of E4M3; w = e2m1(q) * (e4m3(scale) / global_scale).
GroupedBlocks nvfp4_blocks(std::string_view name, int64_t rows, int64_t columns, std::span<const uint8_t> packed, std::span<const uint8_t> scales, float global_scale);
// MXFP4: exponents [rows, columns / 32], w = e2m1(q) * 2^(exponent - 127).
GroupedBlocks mxfp4_blocks(std::string_view name, int64_t rows, int64_t columns, std::span<const uint8_t> packed, std::span<const uint8_t> exponents);

// NF4 of bitsandbytes: packed [rows * columns / 2], the first of two neighbours in the high nibble; statistics [rows * columns / 64], the largest value of each
// block of W's elements in a row.
GroupedBlocks nf4_blocks(std::string_view name, int64_t rows, int64_t columns, std::span<const uint8_t> packed, std::span<const float> statistics);
// Doubly quantised statistics: map[codes[i]] * nested[i / nested_block] + offset.
std::vector<float> nf4_statistics(std::string_view name, std::span<const uint8_t> codes, std::span<const float> map, std::span<const float> nested, int64_t nested_block,
                                  float offset);

}  // namespace graft
