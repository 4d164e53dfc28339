#include <cstring>

#include "kernels/matrix_product/matrix_product.h"
#include "kernels/matrix_product/panel_product.h"
#include "kernels/scratch/scratch.h"

namespace graft {
namespace {

constexpr int64_t kTransposeColumns = 64;

// The panel of op(b) for inner elements [begin, end) and columns [first, first + columns), zeros up to width.
void pack(const Bf16Matrix& b, int64_t first, int64_t columns, int64_t width, int64_t begin, int64_t end, uint32_t* panel, uint16_t* rows) {
  if (!b.transposed) {   // two rows of b are one row of pairs
    for (int64_t k = begin; k < end; k += 2) {
      const uint16_t* pair[] = {b.data + k * b.row_stride + first, b.data + (k + 1) * b.row_stride + first};
      uint32_t* words = panel + (k - begin) / 2 * width;
      if (k + 1 < end && columns == width) {
        interleave(pair[0], pair[1], width, words);
        continue;
      }
      std::memset(rows, 0, 2 * width * sizeof(uint16_t));
      for (int64_t i = 0; i < std::min<int64_t>(2, end - k); ++i) std::memcpy(rows + i * width, pair[i], columns * sizeof(uint16_t));
      interleave(rows, rows + width, width, words);
    }
    return;
  }
  const int64_t depth = end - begin, words = (depth + 1) / 2, stride = b.row_stride * static_cast<int64_t>(sizeof(uint16_t));
  if (columns == width && depth % 2 == 0) {
    transpose_words(b.data + first * b.row_stride + begin, stride, width, words, panel, width);
    return;
  }
  std::memset(rows, 0, width * words * 2 * sizeof(uint16_t));
  for (int64_t column = 0; column < columns; ++column) {
    std::memcpy(rows + column * words * 2, b.data + (first + column) * b.row_stride + begin, depth * sizeof(uint16_t));
  }
  transpose_words(rows, words * 4, width, words, panel, width);
}

}  // namespace

void transpose_bf16(const uint16_t* source, int64_t source_stride, int64_t rows, int64_t columns, uint16_t* destination, int64_t destination_stride) {
  // Pairs of rows first, then whole words: [rows / 2, columns] to [columns, rows / 2].
  Scratch scratch;
  const int64_t pairs = (rows + 1) / 2, padded = rounded_up(pairs, 16);
  auto* words = scratch.elements<uint32_t>(padded * kTransposeColumns);
  auto* zeros = scratch.elements<uint16_t>(kTransposeColumns);
  auto* turned = scratch.elements<uint32_t>(padded * kTransposeColumns);
  std::memset(zeros, 0, kTransposeColumns * sizeof(uint16_t));
  for (int64_t first = 0; first < columns; first += kTransposeColumns) {
    const int64_t count = std::min(kTransposeColumns, columns - first);
    for (int64_t pair = 0; pair < pairs; ++pair) {
      const uint16_t* even = source + 2 * pair * source_stride + first;
      interleave(even, 2 * pair + 1 < rows ? even + source_stride : zeros, count, words + pair * kTransposeColumns);
    }
    if (pairs == padded && destination_stride % 2 == 0) {
      transpose_words(words, kTransposeColumns * 4, pairs, count, destination + first * destination_stride, destination_stride / 2);
      continue;
    }
    transpose_words(words, kTransposeColumns * 4, padded, count, turned, padded);
    for (int64_t column = 0; column < count; ++column) {
      std::memcpy(destination + (first + column) * destination_stride, turned + column * padded, 2 * pairs * sizeof(uint16_t));
    }
  }
}

void matrix_product(int64_t m, int64_t n, int64_t k, const Bf16Matrix& a, const Bf16Matrix& b, float* c, int64_t c_row_stride, bool accumulate) {
  if (m == 0 || n == 0) return;
  if (k == 0) {
    for (int64_t row = 0; row < m && !accumulate; ++row) std::fill_n(c + row * c_row_stride, n, 0.0f);
    return;
  }
  Scratch outer;
  Bf16Matrix left = a;
  if (a.transposed) {
    left = {nullptr, rounded_up(k, 2), false};
    auto* turned = outer.elements<uint16_t>(m * left.row_stride);
    transpose_bf16(a.data, a.row_stride, k, m, turned, left.row_stride);
    left.data = turned;
  }
  const int64_t chunk = depth_chunk<uint16_t>(kPanelColumns);
  share_out(m, n, kColumnUnit, [&](int64_t first, int64_t last, int64_t row_first, int64_t row_last) {
    Scratch scratch;
    const int64_t longest = std::min(chunk, rounded_up(k, 2));   // even
    auto* panel = scratch.elements<uint32_t>(kPanelColumns * longest / 2);
    auto* rows = scratch.elements<uint16_t>(kPanelColumns * longest);
    for (int64_t begin = 0; begin < k; begin += chunk) {
      const int64_t end = std::min(k, begin + chunk);
      for (int64_t column = first; column < last; column += kPanelColumns) {
        const int64_t columns = std::min(kPanelColumns, last - column), width = rounded_up(columns, 16);
        pack(b, column, columns, width, begin, end, panel, rows);
        panel_product(left.data + row_first * left.row_stride + begin, left.row_stride, row_last - row_first, panel, width, end - begin,
                      c + row_first * c_row_stride + column, c_row_stride, columns, accumulate || begin > 0);
      }
    }
  });
}

}  // namespace graft
