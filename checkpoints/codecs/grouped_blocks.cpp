#include "checkpoints/codecs/grouped_blocks.h"

#include <bit>
#include <cstring>

#include "kernels/common/error.h"
#include "kernels/quantized/block_layouts.h"
#include "kernels/quantized/small_floats.h"

namespace graft {
namespace {

constexpr int64_t ceil_divided(int64_t a, int64_t b) { return (a + b - 1) / b; }

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

template <int kGroup>
GroupedBlocks int4_of_group(std::string_view name, int64_t rows, int64_t columns, std::span<const uint32_t> words, std::span<const float> scales,
                            std::span<const uint32_t> zero_points) {
  check_columns<BlockI4<kGroup>>(name, columns);
  const int64_t groups = columns / kGroup, words_of_row = columns / 8;
  check(name, "words of codes", words.size(), rows * words_of_row);
  check(name, "scales", scales.size(), rows * groups);
  if (!zero_points.empty()) check(name, "words of zero points", zero_points.size(), ceil_divided(rows, 8) * groups);
  uint32_t low_bits = 0;
  for (const float scale : scales) low_bits |= std::bit_cast<uint32_t>(scale) & 0xffff;
  if ((low_bits & 0xff) != 0) fail("checkpoints", "{}: expected scales that bfloat16 or float16 can hold, got float32 — this form is not known", name);
  const auto scale_bits = [&](int64_t row, int64_t column) { return std::bit_cast<uint32_t>(scales[static_cast<size_t>(row * groups + column / kGroup)]); };
  const auto set_codes = [&](auto& block, int64_t row, int64_t column) {
    const uint32_t* own = words.data() + row * words_of_row + column / 8;
    set_nibbles(block, [&](int i) { return own[i / 8] >> i % 8 * 4 & 15; });
  };
  if (zero_points.empty() && low_bits == 0) {
    return {kGroup == 32 ? TensorType::kI4_32 : TensorType::kI4_128, filled<BlockI4<kGroup>>(rows, columns, [&](auto& block, int64_t row, int64_t column) {
              block.scale = static_cast<uint16_t>(scale_bits(row, column) >> 16);
              set_codes(block, row, column);
            })};
  }
  return {kGroup == 32 ? TensorType::kI4_32Zero : TensorType::kI4_128Zero, filled<BlockI4Zero<kGroup>>(rows, columns, [&](auto& block, int64_t row, int64_t column) {
            const uint32_t zero = zero_points.empty() ? 8 : zero_points[static_cast<size_t>(row / 8 * groups + column / kGroup)] >> row % 8 * 4 & 15;
            block.scale_and_zero = scale_bits(row, column) | zero;
            set_codes(block, row, column);
          })};
}

}  // namespace

GroupedBlocks fp8_blocks(std::string_view name, int64_t rows, int64_t columns, std::span<const uint8_t> codes, int64_t scale_rows, int64_t scale_columns,
                         std::span<const float> scales) {
  check_columns<BlockF8E4M3>(name, columns);
  if (scale_rows <= 0 || scale_columns <= 0 || (scale_columns < columns && scale_columns % BlockF8E4M3::kElements != 0)) {
    fail("checkpoints", "{}: expected a scale for whole groups of {} columns, got one for [{}, {}] — this form is not known", name, BlockF8E4M3::kElements, scale_rows, scale_columns);
  }
  const int64_t scales_of_row = ceil_divided(columns, scale_columns);
  check(name, "codes", codes.size(), rows * columns);
  check(name, "scales", scales.size(), ceil_divided(rows, scale_rows) * scales_of_row);
  return {TensorType::kF8E4M3Scaled, filled<BlockF8E4M3>(rows, columns, [&](BlockF8E4M3& block, int64_t row, int64_t column) {
            block.scale = scales[static_cast<size_t>(row / scale_rows * scales_of_row + column / scale_columns)];
            std::memcpy(block.codes, codes.data() + row * columns + column, sizeof block.codes);
          })};
}

GroupedBlocks int4_blocks(std::string_view name, int64_t rows, int64_t columns, int64_t group, std::span<const uint32_t> words, std::span<const float> scales,
                          std::span<const uint32_t> zero_points) {
  if (group == 32) return int4_of_group<32>(name, rows, columns, words, scales, zero_points);
  if (group == 128) return int4_of_group<128>(name, rows, columns, words, scales, zero_points);
  fail("checkpoints", "{}: expected INT4 in groups of 32 or 128, got {} — this form is not known", name, group);
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
