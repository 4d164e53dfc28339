#include "checkpoints/codecs/grouped_blocks.h"

#include <bit>
#include <cstring>

#include "checkpoints/codecs/blocks_of_matrix.h"
#include "kernels/common/error.h"
#include "kernels/quantized/block_layouts.h"
#include "kernels/quantized/dequantize.h"
#include "kernels/quantized/small_floats.h"

namespace graft {
namespace {

void check(std::string_view name, const char* what, size_t got, int64_t expected) {
  if (static_cast<int64_t>(got) != expected) fail("checkpoints", "{}: expected {} of {}, got {} — the file is damaged", name, expected, what, got);
}

template <typename Block>
void check_columns(std::string_view name, int64_t columns) {
  if (columns % Block::kElements != 0) fail("checkpoints", "{}: expected columns in whole groups of {}, got {} — the last group is cut", name, Block::kElements, columns);
}

// fill(block, row, column) on each block.
template <typename Block, typename Function>
std::vector<std::byte> filled(int64_t rows, int64_t columns, const Function& fill) {
  std::vector<std::byte> bytes(static_cast<size_t>(rows * (columns / Block::kElements)) * sizeof(Block));
  auto* to = bytes.data();
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; column += Block::kElements, to += sizeof(Block)) {
      Block block;
      fill(block, row, column);
      std::memcpy(to, &block, sizeof block);
    }
  }
  return bytes;
}

// Nibbles in ggml's halves of 32 from code(i), the block's i-th.
template <typename Block, typename Function>
void set_nibbles(Block& block, const Function& code) {
  for (int i = 0; i < Block::kElements / 2; ++i) {
    const int first = i / 16 * 32 + i % 16;
    block.nibbles[i] = static_cast<uint8_t>(code(first) | code(first + 16) << 4);
  }
}

// w = code(row, column) less zero(row, group), times the scale at scale_index(row, group).
struct Int4Scales {
  std::span<const float> values;
  int64_t group;   // columns
  bool zeros_are_8;
};

template <int kBlock, typename Code, typename Index, typename Zero>
GroupedBlocks int4_of_block(int64_t rows, int64_t columns, const Int4Scales& scales, bool narrow, const Code& code, const Index& scale_index, const Zero& zero) {
  const auto scale_bits = [&](int64_t row, int64_t column) { return std::bit_cast<uint32_t>(scales.values[static_cast<size_t>(scale_index(row, column / scales.group))]); };
  const auto set_codes = [&](auto& block, int64_t row, int64_t column) {
    set_nibbles(block, [&](int i) { return code(row, column + i); });
  };
  constexpr auto kType = kBlock == 32 ? TensorType::kI4_32 : kBlock == 64 ? TensorType::kI4_64 : TensorType::kI4_128;
  constexpr auto kTypeWithZero = kBlock == 32 ? TensorType::kI4_32Zero : kBlock == 64 ? TensorType::kI4_64Zero : TensorType::kI4_128Zero;
  if (narrow) {
    return {kType, filled<BlockI4<kBlock>>(rows, columns, [&](auto& block, int64_t row, int64_t column) {
              block.scale = static_cast<uint16_t>(scale_bits(row, column) >> 16);
              set_codes(block, row, column);
            })};
  }
  return {kTypeWithZero, filled<BlockI4Zero<kBlock>>(rows, columns, [&](auto& block, int64_t row, int64_t column) {
            block.scale_and_zero = scale_bits(row, column) | static_cast<uint32_t>(zero(row, column / scales.group));
            set_codes(block, row, column);
          })};
}

// In the longest blocks that no group ends in.
template <typename Code, typename Index, typename Zero>
GroupedBlocks int4_of(std::string_view name, int64_t rows, int64_t columns, const Int4Scales& scales, const Code& code, const Index& scale_index, const Zero& zero) {
  uint32_t low_bits = 0;
  for (const float scale : scales.values) low_bits |= std::bit_cast<uint32_t>(scale) & 0xffff;
  if ((low_bits & 0xff) != 0) fail("checkpoints", "{}: expected scales that bfloat16 or float16 can hold, got float32 — this form is not known", name);
  const bool narrow = scales.zeros_are_8 && low_bits == 0;
  if (scales.group % 128 == 0) return int4_of_block<128>(rows, columns, scales, narrow, code, scale_index, zero);
  if (scales.group % 64 == 0) return int4_of_block<64>(rows, columns, scales, narrow, code, scale_index, zero);
  return int4_of_block<32>(rows, columns, scales, narrow, code, scale_index, zero);
}

void check_int4(std::string_view name, int64_t rows, int64_t columns, int64_t group, size_t words, size_t scales) {
  if (group <= 0 || group % 32 != 0) fail("checkpoints", "{}: expected INT4 in groups of a multiple of 32, got {} — this form is not known", name, group);
  if (columns % group != 0) fail("checkpoints", "{}: expected columns in whole groups of {}, got {} — the last group is cut", name, group, columns);
  check(name, "words of codes", words, rows * columns / 8);
  check(name, "scales", scales, rows * (columns / group));
}

void check_words_of_rows(std::string_view name, int64_t rows) {
  if (rows % 8 != 0) fail("checkpoints", "{}: expected rows in whole words of 8, got {} — the file is damaged", name, rows);
}

int nibble(uint32_t word, int64_t i) { return static_cast<int>(word >> i * 4 & 15); }

// Of FP8 and INT8: codes of a byte, a scale for each rectangle.
template <typename Block, typename CodeType>
std::vector<std::byte> scaled_bytes(std::string_view name, int64_t rows, int64_t columns, std::span<const CodeType> codes, int64_t scale_rows, int64_t scale_columns,
                                    std::span<const float> scales) {
  check_columns<Block>(name, columns);
  if (scale_rows <= 0 || scale_columns <= 0 || (scale_columns < columns && scale_columns % Block::kElements != 0)) {
    fail("checkpoints", "{}: expected a scale for whole groups of {} columns, got one for [{}, {}] — this form is not known", name, Block::kElements, scale_rows, scale_columns);
  }
  const int64_t scales_of_row = ceil_divided(columns, scale_columns);
  check(name, "codes", codes.size(), rows * columns);
  check(name, "scales", scales.size(), ceil_divided(rows, scale_rows) * scales_of_row);
  return filled<Block>(rows, columns, [&](Block& block, int64_t row, int64_t column) {
    block.scale = scales[static_cast<size_t>(row / scale_rows * scales_of_row + column / scale_columns)];
    std::memcpy(block.codes, codes.data() + row * columns + column, sizeof block.codes);
  });
}

// Of FP4: two neighbours in a byte. set_scales(block, block's number) fills in the rest.
template <typename Block, typename Function>
std::vector<std::byte> fp4_bytes(std::string_view name, int64_t rows, int64_t columns, std::span<const uint8_t> packed, const Function& set_scales) {
  check_columns<Block>(name, columns);
  check(name, "bytes of codes", packed.size(), rows * columns / 2);
  return filled<Block>(rows, columns, [&](Block& block, int64_t row, int64_t column) {
    const int64_t first = row * columns + column;
    set_scales(block, first / Block::kElements);
    set_nibbles(block, [&](int i) { return packed[static_cast<size_t>((first + i) / 2)] >> i % 2 * 4 & 15; });
  });
}

}  // namespace

GroupedBlocks fp8_blocks(std::string_view name, int64_t rows, int64_t columns, std::span<const uint8_t> codes, int64_t scale_rows, int64_t scale_columns,
                         std::span<const float> scales) {
  return {TensorType::kF8E4M3Scaled, scaled_bytes<BlockF8E4M3>(name, rows, columns, codes, scale_rows, scale_columns, scales)};
}

GroupedBlocks int8_blocks(std::string_view name, int64_t rows, int64_t columns, std::span<const int8_t> codes, int64_t scale_rows, int64_t scale_columns,
                          std::span<const float> scales) {
  return {TensorType::kI8Scaled, scaled_bytes<BlockI8>(name, rows, columns, codes, scale_rows, scale_columns, scales)};
}

GroupedBlocks int4_blocks(std::string_view name, int64_t rows, int64_t columns, int64_t group, std::span<const uint32_t> words, std::span<const float> scales,
                          std::span<const uint32_t> zero_points) {
  check_int4(name, rows, columns, group, words.size(), scales.size());
  const int64_t groups = columns / group, words_of_row = columns / 8;
  if (!zero_points.empty()) check(name, "words of zero points", zero_points.size(), ceil_divided(rows, 8) * groups);
  return int4_of(
      name, rows, columns, {scales, group, zero_points.empty()}, [&](int64_t row, int64_t column) { return nibble(words[static_cast<size_t>(row * words_of_row + column / 8)], column % 8); },
      [&](int64_t row, int64_t at) { return row * groups + at; },
      [&](int64_t row, int64_t at) { return zero_points.empty() ? 8 : nibble(zero_points[static_cast<size_t>(row / 8 * groups + at)], row % 8); });
}

GroupedBlocks gptq_blocks(std::string_view name, int64_t rows, int64_t columns, int64_t group, std::span<const uint32_t> words, std::span<const float> scales,
                          std::span<const uint32_t> zero_points, int zero_offset) {
  check_int4(name, rows, columns, group, words.size(), scales.size());
  check_words_of_rows(name, rows);
  check(name, "words of zero points", zero_points.size(), columns / group * rows / 8);
  const auto zero = [&](int64_t row, int64_t at) { return nibble(zero_points[static_cast<size_t>(at * rows / 8 + row / 8)], row % 8) + zero_offset; };
  return int4_of(
      name, rows, columns, {scales, group, false}, [&](int64_t row, int64_t column) { return nibble(words[static_cast<size_t>(column / 8 * rows + row)], column % 8); },
      [&](int64_t row, int64_t at) { return at * rows + row; }, zero);
}

GroupedBlocks awq_blocks(std::string_view name, int64_t rows, int64_t columns, int64_t group, std::span<const uint32_t> words, std::span<const float> scales,
                         std::span<const uint32_t> zero_points) {
  check_int4(name, rows, columns, group, words.size(), scales.size());
  check_words_of_rows(name, rows);
  check(name, "words of zero points", zero_points.size(), columns / group * rows / 8);
  int place[8];   // of a row's code in its word
  for (int i = 0; i < 8; ++i) place[kAwqRows[i]] = i;
  const auto at_row = [&](std::span<const uint32_t> all, int64_t line, int64_t row) { return nibble(all[static_cast<size_t>(line * rows / 8 + row / 8)], place[row % 8]); };
  return int4_of(
      name, rows, columns, {scales, group, false}, [&](int64_t row, int64_t column) { return at_row(words, column, row); },
      [&](int64_t row, int64_t at) { return at * rows + row; }, [&](int64_t row, int64_t at) { return at_row(zero_points, at, row); });
}

GroupedBlocks nvfp4_blocks(std::string_view name, int64_t rows, int64_t columns, std::span<const uint8_t> packed, std::span<const uint8_t> scales, float global_scale) {
  check(name, "scales", scales.size(), rows * columns / 16);
  if (!(global_scale > 0)) fail("checkpoints", "{}: expected a global scale above zero, got {} — the file is damaged", name, global_scale);
  std::vector<float> decoded(scales.size());
  dequantize(TensorType::kF8E4M3, reinterpret_cast<const std::byte*>(scales.data()), static_cast<int64_t>(scales.size()), decoded.data());
  return {TensorType::kNVFP4, fp4_bytes<BlockNVFP4>(name, rows, columns, packed, [&](BlockNVFP4& block, int64_t at) {
            for (int half = 0; half < 2; ++half) block.scales[half] = decoded[static_cast<size_t>(at * 2 + half)] / global_scale;
          })};
}

GroupedBlocks mxfp4_blocks(std::string_view name, int64_t rows, int64_t columns, std::span<const uint8_t> packed, std::span<const uint8_t> exponents) {
  check(name, "scales", exponents.size(), rows * columns / BlockMXFP4::kElements);
  return {TensorType::kMXFP4, fp4_bytes<BlockMXFP4>(name, rows, columns, packed, [&](BlockMXFP4& block, int64_t at) { block.exponent = exponents[static_cast<size_t>(at)]; })};
}

GroupedBlocks nf4_blocks(std::string_view name, int64_t rows, int64_t columns, std::span<const uint8_t> packed, std::span<const float> statistics) {
  check_columns<BlockNF4>(name, columns);
  check(name, "bytes of codes", packed.size(), rows * columns / 2);
  check(name, "statistics", statistics.size(), rows * columns / BlockNF4::kElements);
  return {TensorType::kNF4, filled<BlockNF4>(rows, columns, [&](BlockNF4& block, int64_t row, int64_t column) {
            const int64_t first = row * columns + column;
            block.scale = statistics[static_cast<size_t>(first / BlockNF4::kElements)];
            set_nibbles(block, [&](int i) { return packed[static_cast<size_t>((first + i) / 2)] >> (1 - i % 2) * 4 & 15; });
          })};
}

std::vector<float> nf4_statistics(std::string_view name, std::span<const uint8_t> codes, std::span<const float> map, std::span<const float> nested, int64_t nested_block,
                                  float offset) {
  check(name, "values of the statistics' map", map.size(), 256);
  if (nested_block <= 0) fail("checkpoints", "{}: expected blocks of statistics, got blocks of {} — the file is damaged", name, nested_block);
  check(name, "nested statistics", nested.size(), ceil_divided(static_cast<int64_t>(codes.size()), nested_block));
  std::vector<float> statistics(codes.size());
  for (size_t i = 0; i < codes.size(); ++i) statistics[i] = map[codes[i]] * nested[i / static_cast<size_t>(nested_block)] + offset;
  return statistics;
}

}  // namespace graft
