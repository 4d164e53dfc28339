// Products with a matrix that is packed into panels: what frozen_product (which decodes its panels) and matrix_product (which copies them) share.
// Element: float, or uint16_t for bfloat16, whose panels hold pairs in words (bf16_tile_product.h).
#pragma once
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <type_traits>
#include <vector>

#include <ATen/Parallel.h>

#include "kernels/common/rounded_up.h"
#include "kernels/matrix_product/bf16_panel_amx.h"
#include "kernels/matrix_product/bf16_tile_product.h"
#include "kernels/matrix_product/tile_product.h"
#include "kernels/tasks/for_each_task.h"

namespace graft {

inline constexpr int64_t kDepthBlock = 256;              // one chain of multiply-adds
inline constexpr int64_t kRowBlock = 16 * kTileRows;     // a piece of panel, one chain deep, serves so many rows before the next comes
inline constexpr int64_t kPanelBytes = 1 << 20;          // of packed panels at a time: half of a second-level cache, or all of a small one
inline constexpr int64_t kColumnUnit = 32;               // threads' shares are cut in these
inline constexpr int64_t kShareColumns = 256;            // of a share where a thread has several
inline constexpr int64_t kMostSharesOfThread = 8;

template <typename Element>
using PanelWord = std::conditional_t<std::is_same_v<Element, float>, float, uint32_t>;
template <typename Element>
inline constexpr int64_t kElementsPerWord = sizeof(PanelWord<Element>) / sizeof(Element);

// Of the inner dimension at a time, in whole chains: as much as `columns` of panels may fill.
template <typename Element>
constexpr int64_t depth_chunk(int64_t columns) {
  return kPanelBytes / static_cast<int64_t>(sizeof(Element)) / columns / kDepthBlock * kDepthBlock;
}

// Cuts [num_rows x columns] over the threads and calls f(first column, end column, first row, end row) on each: wide ones in several shares for each thread, so that one
// that is held up does not hold up the others.
template <typename Function>
void share_out(int64_t num_rows, int64_t columns, int64_t unit, const Function& f) {
  const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  const int64_t units = rounded_up(columns, unit) / unit;
  const int64_t column_shares = std::min({threads, units, std::max<int64_t>(1, columns / kPanelColumns)});
  const int64_t row_shares = std::max<int64_t>(1, std::min(threads / column_shares, num_rows / (8 * kTileRows)));
  const int64_t times = threads == 1 ? 1 : std::clamp<int64_t>(columns / (column_shares * kShareColumns), 1, kMostSharesOfThread), cuts = column_shares * times;
  std::vector<int64_t> shares(static_cast<size_t>(cuts * row_shares));
  std::iota(shares.begin(), shares.end(), int64_t{0});
  for_each_task(shares, [&](int64_t share) {
    const int64_t c = share % cuts, r = share / cuts;
    const int64_t first = units * c / cuts * unit, last = std::min(columns, units * (c + 1) / cuts * unit);
    if (first < last) f(first, last, num_rows * r / row_shares, num_rows * (r + 1) / row_shares);
  });
}

// c[rows, columns] (+)= a[rows, depth] * panel, in chains of kDepthBlock; of bfloat16 in AMX's steps where a machine has it.
template <typename Element>
void panel_product(const Element* a, int64_t a_row_stride, int64_t num_rows, const PanelWord<Element>* panel, int64_t width, int64_t depth, float* c,
                   int64_t c_row_stride, int64_t columns, bool accumulate) {
  if constexpr (!std::is_same_v<Element, float>) {
    if (const auto amx = bf16_panel_product_amx()) return amx(a, a_row_stride, num_rows, panel, width, depth, c, c_row_stride, columns, accumulate);
  }
  const auto tile = [] {
    if constexpr (std::is_same_v<Element, float>) return tile_product();
    else return bf16_tile_product();
  }();
  for (int64_t first = 0; first < num_rows; first += kRowBlock) {
    const int64_t end = std::min(num_rows, first + kRowBlock);
    for (int64_t k = 0; k < depth; k += kDepthBlock) {
      const int64_t block = std::min(kDepthBlock, depth - k);
      for (int64_t row = first; row < end; row += kTileRows) {
        tile(a + row * a_row_stride + k, a_row_stride, std::min(kTileRows, end - row), panel + k / kElementsPerWord<Element> * width, width, block,
             c + row * c_row_stride, c_row_stride, columns, accumulate || k > 0);
      }
    }
  }
}

}  // namespace graft
