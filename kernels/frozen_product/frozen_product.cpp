#include "kernels/frozen_product/frozen_product.h"

#include <algorithm>
#include <cstring>

#include <ATen/Parallel.h>

#include "kernels/common/error.h"
#include "kernels/frozen_product/tile_product.h"
#include "kernels/scratch/scratch.h"

namespace graft {
namespace {

constexpr int64_t kPanelFloats = 262144;   // 1 MiB of packed panels: half of a second-level cache
constexpr int64_t kDepthBlock = 256, kRowBlock = 16 * kTileRows;   // a piece of panel, one chain deep, serves so many rows before the next comes
constexpr int64_t kDecodeColumns = 256;    // the longest block of any form
constexpr int64_t kColumnUnit = 32;        // threads' shares are cut in these
static_assert(kDepthBlock % kDecodeColumns == 0, "a chunk of the inner dimension begins where a block does");

struct Sizes {
  int64_t inputs = 0, outputs = 0, ranks = 0;
};

Sizes sizes_of(std::span<const FrozenPart> parts) {
  Sizes sizes;
  sizes.inputs = parts.front().weight->columns();
  for (const auto& part : parts) {
    if (part.weight->columns() != sizes.inputs) fail("kernels", "frozen_product: expected a weight of {} columns, got {}", sizes.inputs, part.weight->columns());
    sizes.outputs += part.weight->rows();
    sizes.ranks += part.rank;
  }
  return sizes;
}

int64_t rounded_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

// Calls f(part, row of the part, first rank column of the part, row) for rows [first, first + count) of M.
template <typename Function>
void for_rows(std::span<const FrozenPart> parts, int64_t first, int64_t count, const Function& f) {
  int64_t part_first = 0, rank_first = 0;
  for (const auto& part : parts) {
    const int64_t part_rows = part.weight->rows();
    for (int64_t row = std::max(first, part_first); row < std::min(first + count, part_first + part_rows); ++row) {
      f(part, row - part_first, rank_first, row);
    }
    part_first += part_rows;
    rank_first += part.rank;
  }
}

// panel[e - begin][o - first] of M^T, for inner columns e in [begin, end) and M's rows o in [first, first + columns); zeros up to width.
void pack_forward(std::span<const FrozenPart> parts, const Sizes& sizes, int64_t first, int64_t columns, int64_t width, int64_t begin, int64_t end,
                  float* panel, float* decoded) {
  for (int64_t e = begin; e < std::min(end, sizes.inputs); e += kDecodeColumns) {
    const int64_t count = std::min({kDecodeColumns, end - e, sizes.inputs - e});
    std::fill(decoded + columns * kDecodeColumns, decoded + width * kDecodeColumns, 0.0f);
    for_rows(parts, first, columns, [&](const FrozenPart& part, int64_t part_row, int64_t, int64_t row) {
      part.weight->decode_part(part_row, e, count, decoded + (row - first) * kDecodeColumns);
    });
    transpose_rows(decoded, kDecodeColumns, width, count, panel + (e - begin) * width, width);
  }
  const int64_t rank_begin = std::max(begin, sizes.inputs) - sizes.inputs, rank_end = end - sizes.inputs;
  if (rank_begin >= rank_end) return;
  float* tail = panel + (sizes.inputs + rank_begin - begin) * width;
  std::fill(tail, tail + (rank_end - rank_begin) * width, 0.0f);
  for_rows(parts, first, columns, [&](const FrozenPart& part, int64_t part_row, int64_t part_rank, int64_t row) {
    for (int64_t r = std::max(rank_begin, part_rank); r < std::min(rank_end, part_rank + part.rank); ++r) {
      tail[(r - rank_begin) * width + row - first] = part.lora_b_OR[part_row * part.rank + r - part_rank];
    }
  });
}

// Panels of M side by side, panels[j][o - begin][...] for M's rows o in [begin, end): panel j begins at column first + 64 j, the last one
// is narrower when `columns` says so; zeros up to its width.
void pack_backward(std::span<const FrozenPart> parts, const Sizes& sizes, int64_t first, int64_t columns, int64_t begin, int64_t end, float* panels,
                   float* decoded) {
  const int64_t depth = end - begin;
  const int64_t from_weight = std::clamp<int64_t>(sizes.inputs - first, 0, columns);
  for_rows(parts, begin, depth, [&](const FrozenPart& part, int64_t part_row, int64_t part_rank, int64_t row) {
    const bool direct = columns <= kPanelColumns && columns % 16 == 0;
    float* values = direct ? panels + (row - begin) * columns : decoded;
    if (from_weight > 0) part.weight->decode_part(part_row, first, from_weight, values);
    std::fill(values + from_weight, values + rounded_up(columns, 16), 0.0f);
    const int64_t rank_column = sizes.inputs + part_rank;   // of M
    for (int64_t r = std::max<int64_t>(0, first - rank_column); r < std::min(part.rank, first + columns - rank_column); ++r) {
      values[rank_column + r - first] = part.lora_b_OR[part_row * part.rank + r];
    }
    if (direct) return;
    for (int64_t column = 0; column < columns; column += kPanelColumns) {
      const int64_t width = std::min(kPanelColumns, rounded_up(columns - column, 16));
      std::memcpy(panels + column * depth + (row - begin) * width, values + column, width * sizeof(float));
    }
  });
}

// Of the inner dimension at a time, in whole chains: so much that the plain matrix's columns stay in the second-level cache while the panels pass, and that
// `columns` of panels fit their scratch.
int64_t depth_chunk(int64_t num_rows, int64_t columns) {
  return std::clamp(kPanelFloats / std::max<int64_t>(num_rows, 1) / kDepthBlock, int64_t{1}, kPanelFloats / columns / kDepthBlock) * kDepthBlock;
}

// Cuts [columns x rows] over the threads and calls f(first column, end column, first row, end row) on each.
template <typename Function>
void share_out(int64_t num_rows, int64_t columns, int64_t unit, const Function& f) {
  const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  const int64_t units = rounded_up(columns, unit) / unit;
  const int64_t column_shares = std::min({threads, units, std::max<int64_t>(1, columns / kPanelColumns)});
  const int64_t row_shares = std::max<int64_t>(1, std::min(threads / column_shares, num_rows / (8 * kTileRows)));
  at::parallel_for(0, column_shares * row_shares, 1, [&](int64_t begin, int64_t end) {
    for (int64_t share = begin; share < end; ++share) {
      const int64_t c = share % column_shares, r = share / column_shares;
      const int64_t first = units * c / column_shares * unit, last = std::min(columns, units * (c + 1) / column_shares * unit);
      f(first, last, num_rows * r / row_shares, num_rows * (r + 1) / row_shares);
    }
  });
}

// c[rows, columns] (+)= a[rows, depth] * panel
void panel_product(const float* a, int64_t a_row_stride, int64_t num_rows, const float* panel, int64_t width, int64_t depth, float* c, int64_t c_row_stride,
                   int64_t columns, bool accumulate) {
  const auto tile = tile_product();
  for (int64_t first = 0; first < num_rows; first += kRowBlock) {
    const int64_t end = std::min(num_rows, first + kRowBlock);
    for (int64_t k = 0; k < depth; k += kDepthBlock) {
      const int64_t block = std::min(kDepthBlock, depth - k);
      for (int64_t row = first; row < end; row += kTileRows) {
        tile(a + row * a_row_stride + k, a_row_stride, std::min(kTileRows, end - row), panel + k * width, width, block, c + row * c_row_stride, c_row_stride,
             columns, accumulate || k > 0);
      }
    }
  }
}

}  // namespace

void frozen_product(int64_t num_rows, const float* p_NE, int64_t p_row_stride, std::span<const FrozenPart> parts, float* y_NO, int64_t y_row_stride) {
  const auto sizes = sizes_of(parts);
  const int64_t extended = sizes.inputs + sizes.ranks, chunk = depth_chunk(num_rows, kPanelColumns);
  if (num_rows == 0) return;
  share_out(num_rows, sizes.outputs, kColumnUnit, [&](int64_t first, int64_t last, int64_t row_first, int64_t row_last) {
    Scratch scratch;
    float* panel = scratch.floats(kPanelFloats);
    float* decoded = scratch.floats(kPanelColumns * kDecodeColumns);
    for (int64_t e = 0; e < extended; e += chunk) {
      const int64_t end = std::min(extended, e + chunk);
      for (int64_t o = first; o < last; o += kPanelColumns) {
        const int64_t columns = std::min(kPanelColumns, last - o), width = rounded_up(columns, 16);
        pack_forward(parts, sizes, o, columns, width, e, end, panel, decoded);
        panel_product(p_NE + row_first * p_row_stride + e, p_row_stride, row_last - row_first, panel, width, end - e, y_NO + row_first * y_row_stride + o,
                      y_row_stride, columns, e > 0);
      }
    }
  });
}

void frozen_product_backward(int64_t num_rows, const float* dy_NO, int64_t dy_row_stride, std::span<const FrozenPart> parts, float* dp_NE,
                             int64_t dp_row_stride, bool accumulate) {
  const auto sizes = sizes_of(parts);
  int64_t block = 1;
  for (const auto& part : parts) block = std::max(block, info(part.weight->type()).block_elements);
  const int64_t group = std::max(block, kPanelColumns), chunk = depth_chunk(num_rows, group);   // columns decoded at a time, rows of M at a time
  if (num_rows == 0) return;
  share_out(num_rows, sizes.inputs + sizes.ranks, std::max(block, kColumnUnit), [&](int64_t first, int64_t last, int64_t row_first, int64_t row_last) {
    Scratch scratch;
    float* panels = scratch.floats(kPanelFloats);
    float* decoded = scratch.floats(kPanelColumns * kDecodeColumns);
    for (int64_t o = 0; o < sizes.outputs; o += chunk) {
      const int64_t end = std::min(sizes.outputs, o + chunk);
      for (int64_t e = first; e < last; e += group) {
        const int64_t columns = std::min(group, last - e);
        pack_backward(parts, sizes, e, columns, o, end, panels, decoded);
        for (int64_t column = 0; column < columns; column += kPanelColumns) {
          const int64_t count = std::min(kPanelColumns, columns - column);
          panel_product(dy_NO + row_first * dy_row_stride + o, dy_row_stride, row_last - row_first, panels + column * (end - o), rounded_up(count, 16), end - o,
                        dp_NE + row_first * dp_row_stride + e + column, dp_row_stride, count, accumulate || o > 0);
        }
      }
    }
  });
}

}  // namespace graft
