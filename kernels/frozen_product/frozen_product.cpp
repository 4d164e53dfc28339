#include "kernels/frozen_product/frozen_product.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/common/error.h"
#include "kernels/elementwise/rows_cpu.h"
#include "kernels/matrix_product/panel_product.h"
#include "kernels/scratch/scratch.h"

namespace graft {
namespace {

constexpr int64_t kDecodeColumns = 256;    // the longest block of any form
constexpr int64_t kRowsAtATime = 2 * kRowBlock;    // pass all panels that are packed: they come from memory once for these, not once for each
constexpr int64_t kBackwardColumns = 256;  // of a weight decoded at a time, row after row: 64 would read two cache lines of every page
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

// values = row `part_row` of [W | B], columns [first, first + count) of M: the weight, then this part's factor in its own columns.
template <typename Element>
void decode_row(const FrozenPart& part, int64_t part_row, int64_t part_rank, int64_t inputs, int64_t first, int64_t count, Element* values) {
  const int64_t from_weight = std::clamp<int64_t>(inputs - first, 0, count);
  if (from_weight > 0) part.weight->decode_part(part_row, first, from_weight, values);
  std::fill(values + from_weight, values + count, Element{0});
  const int64_t rank_column = inputs + part_rank;   // of M
  const int64_t begin = std::max<int64_t>(0, first - rank_column), end = std::min(part.rank, first + count - rank_column);
  if (begin < end) rows::from_float(part.lora_b_OR + part_row * part.rank + begin, end - begin, values + rank_column + begin - first);
}

// Rows [first, first + count) of M, from inner column `column` on, where they lie in memory as a panel takes them: bfloat16, of one part's weight alone.
struct StoredRows {
  const uint16_t* data = nullptr;   // null: no
  int64_t row_stride = 0;
};

StoredRows stored_rows(std::span<const FrozenPart> parts, int64_t inputs, int64_t first, int64_t count, int64_t column, int64_t columns) {
  for (const auto& part : parts) {
    const auto& weight = *part.weight;
    if (first < weight.rows()) {
      if (weight.type() != TensorType::kBF16 || first + count > weight.rows() || column + columns > inputs) return {};
      return {reinterpret_cast<const uint16_t*>(weight.row(first)) + column, weight.row_bytes() / 2};
    }
    first -= weight.rows();
  }
  return {};
}

// The panel of M^T for inner columns [begin, end) and M's rows [first, first + columns); zeros up to width.
template <typename Element>
void pack_forward(std::span<const FrozenPart> parts, const Sizes& sizes, int64_t first, int64_t columns, int64_t width, int64_t begin, int64_t end,
                  PanelWord<Element>* panel, Element* decoded) {
  constexpr int64_t kPer = kElementsPerWord<Element>;
  std::fill(decoded + columns * kDecodeColumns, decoded + width * kDecodeColumns, Element{0});
  for (int64_t e = begin; e < end; e += kDecodeColumns) {
    const int64_t count = std::min(kDecodeColumns, end - e), words = (count + kPer - 1) / kPer;
    if constexpr (kPer == 2) {
      const auto stored = columns == width && count % 2 == 0 ? stored_rows(parts, sizes.inputs, first, columns, e, count) : StoredRows{};
      if (stored.data) {
        transpose_words(stored.data, stored.row_stride * 2, width, words, panel + (e - begin) / kPer * width, width);
        continue;
      }
    }
    for_rows(parts, first, columns, [&](const FrozenPart& part, int64_t part_row, int64_t part_rank, int64_t row) {
      Element* values = decoded + (row - first) * kDecodeColumns;
      decode_row(part, part_row, part_rank, sizes.inputs, e, count, values);
      if (count < words * kPer) values[count] = 0;
    });
    transpose_words(decoded, kDecodeColumns * static_cast<int64_t>(sizeof(Element)), width, words, panel + (e - begin) / kPer * width, width);
  }
}

// Panels of M side by side for M's rows [begin, end): panel j begins at column first + 64 j, the last one is narrower when `columns` says so; zeros up to
// its width.
template <typename Element>
void pack_backward(std::span<const FrozenPart> parts, const Sizes& sizes, int64_t first, int64_t columns, int64_t begin, int64_t end,
                   PanelWord<Element>* panels, Element* decoded) {
  constexpr bool kPairs = kElementsPerWord<Element> == 2;
  const int64_t padded = rounded_up(columns, 16), depth = rounded_up(end - begin, kElementsPerWord<Element>) / kElementsPerWord<Element>;   // in words
  const auto to_panels = [&](int64_t word, const auto& put) {   // put(column, width, destination)
    for (int64_t column = 0; column < columns; column += kPanelColumns) {
      const int64_t width = std::min(kPanelColumns, padded - column);
      put(column, width, panels + column * depth + word * width);
    }
  };
  int64_t packed = begin;   // rows before it are in the panels
  for_rows(parts, begin, end - begin, [&](const FrozenPart& part, int64_t part_row, int64_t part_rank, int64_t row) {
    const int64_t index = row - begin;
    if constexpr (kPairs) {
      if (row < packed) return;
      const auto stored = index % 2 == 0 && row + 1 < end && columns == padded ? stored_rows(parts, sizes.inputs, row, 2, first, columns) : StoredRows{};
      if (stored.data) {
        to_panels(index / 2, [&](int64_t column, int64_t width, uint32_t* words) { interleave(stored.data + column, stored.data + stored.row_stride + column, width, words); });
        packed = row + 2;
        return;
      }
      Element* values = decoded + index % 2 * padded;
      decode_row(part, part_row, part_rank, sizes.inputs, first, columns, values);
      std::fill(values + columns, values + padded, Element{0});
      if (index % 2 == 0 && row + 1 < end) return;
      if (index % 2 == 0) std::fill(decoded + padded, decoded + 2 * padded, Element{0});
      to_panels(index / 2, [&](int64_t column, int64_t width, uint32_t* words) { interleave(decoded + column, decoded + padded + column, width, words); });
    } else {
      const bool direct = columns == padded && columns <= kPanelColumns;
      Element* values = direct ? panels + index * columns : decoded;
      decode_row(part, part_row, part_rank, sizes.inputs, first, columns, values);
      if (direct) return;
      std::fill(values + columns, values + padded, Element{0});
      to_panels(index, [&](int64_t column, int64_t width, float* words) { std::memcpy(words, values + column, width * sizeof(float)); });
    }
  });
}

template <typename Element>
struct ForwardPanel {
  const PanelWord<Element>* words;
  int64_t first, columns, width;       // of M's rows
  int64_t begin, end;                  // of the inner dimension
  int64_t row_first, row_last;         // of p
};

// Packs M^T, some panels at a time, a chunk of the inner dimension at a time, and calls use(panel) on each for some rows of p after others, on the threads' shares
// of M's rows and of p's.
template <typename Element, typename Function>
void for_forward_panels(int64_t num_rows, std::span<const FrozenPart> parts, const Sizes& sizes, const Function& use) {
  const int64_t extended = sizes.inputs + sizes.ranks, chunk = depth_chunk<Element>(kPanelColumns);
  const int64_t words = rounded_up(std::min(chunk, extended), kElementsPerWord<Element>) / kElementsPerWord<Element> * kPanelColumns;   // of a panel
  const int64_t group = std::max<int64_t>(1, kPanelBytes / 8 / words) * kPanelColumns;   // half of the panels' memory: the rows need the rest of a cache
  share_out(num_rows, sizes.outputs, kColumnUnit, [&](int64_t first, int64_t last, int64_t row_first, int64_t row_last) {
    Scratch scratch;
    auto* panels = scratch.elements<PanelWord<Element>>(kPanelBytes / 4);
    auto* decoded = scratch.elements<Element>(kPanelColumns * kDecodeColumns);
    for (int64_t e = 0; e < extended; e += chunk) {
      const int64_t end = std::min(extended, e + chunk);
      for (int64_t o = first; o < last; o += group) {
        std::vector<ForwardPanel<Element>> packed;
        for (int64_t column = o; column < std::min(last, o + group); column += kPanelColumns) {
          const int64_t columns = std::min(kPanelColumns, last - column), width = rounded_up(columns, 16);
          auto* panel = panels + (column - o) / kPanelColumns * words;
          pack_forward(parts, sizes, column, columns, width, e, end, panel, decoded);
          packed.push_back({panel, column, columns, width, e, end, 0, 0});
        }
        for (int64_t row = row_first; row < row_last; row += kRowsAtATime) {
          for (auto& panel : packed) {
            panel.row_first = row;
            panel.row_last = std::min(row_last, row + kRowsAtATime);
            use(panel);
          }
        }
      }
    }
  });
}

}  // namespace

template <typename Element>
void frozen_product(int64_t num_rows, const Element* p_NE, int64_t p_row_stride, std::span<const FrozenPart> parts, float* y_NO, int64_t y_row_stride) {
  const auto sizes = sizes_of(parts);
  if (num_rows == 0) return;
  for_forward_panels<Element>(num_rows, parts, sizes, [&](const ForwardPanel<Element>& panel) {
    panel_product(p_NE + panel.row_first * p_row_stride + panel.begin, p_row_stride, panel.row_last - panel.row_first, panel.words, panel.width, panel.end - panel.begin,
                  y_NO + panel.row_first * y_row_stride + panel.first, y_row_stride, panel.columns, panel.begin > 0);
  });
}

template <typename Element>
void frozen_product_to_bf16(int64_t num_rows, const Element* p_NE, int64_t p_row_stride, std::span<const FrozenPart> parts, const float* bias_O, uint16_t* y_NO,
                            int64_t y_row_stride) {
  const auto sizes = sizes_of(parts);
  const int64_t extended = sizes.inputs + sizes.ranks;
  if (num_rows == 0) return;
  const auto finish = [&](float* sums, int64_t first, int64_t columns, uint16_t* y) {
    if (bias_O) rows::add(sums, bias_O + first, columns);
    rows::from_float(sums, columns, y + first);
  };
  if (extended > depth_chunk<Element>(kPanelColumns)) {   // sums of several chunks: they leave the cache between them
    Scratch scratch;
    const int64_t stride = scratch_row_stride(sizes.outputs);
    float* sums = scratch.floats(num_rows * stride);
    frozen_product(num_rows, p_NE, p_row_stride, parts, sums, stride);
    at::parallel_for(0, num_rows, 16, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) finish(sums + n * stride, 0, sizes.outputs, y_NO + n * y_row_stride);
    });
    return;
  }
  for_forward_panels<Element>(num_rows, parts, sizes, [&](const ForwardPanel<Element>& panel) {
    Scratch scratch;
    float* sums = scratch.floats(kRowBlock * kPanelColumns);
    for (int64_t row = panel.row_first; row < panel.row_last; row += kRowBlock) {
      const int64_t count = std::min(kRowBlock, panel.row_last - row);
      panel_product(p_NE + row * p_row_stride, p_row_stride, count, panel.words, panel.width, extended, sums, kPanelColumns, panel.columns, false);
      for (int64_t r = 0; r < count; ++r) finish(sums + r * kPanelColumns, panel.first, panel.columns, y_NO + (row + r) * y_row_stride);
    }
  });
}

template <typename Element>
void frozen_product_backward(int64_t num_rows, const Element* dy_NO, int64_t dy_row_stride, std::span<const FrozenPart> parts, float* dp_NE,
                             int64_t dp_row_stride, bool accumulate) {
  constexpr int64_t kPer = kElementsPerWord<Element>;
  const auto sizes = sizes_of(parts);
  int64_t block = 1;
  for (const auto& part : parts) block = std::max(block, info(part.weight->type()).block_elements);
  const int64_t group = std::max(block, kBackwardColumns), chunk = depth_chunk<Element>(group);   // columns decoded at a time, rows of M at a time
  if (num_rows == 0) return;
  share_out(num_rows, sizes.inputs + sizes.ranks, std::max(block, kColumnUnit), [&](int64_t first, int64_t last, int64_t row_first, int64_t row_last) {
    Scratch scratch;
    auto* panels = scratch.elements<PanelWord<Element>>(kPanelBytes / 4);
    auto* decoded = scratch.elements<Element>(kPanelColumns * kDecodeColumns);
    for (int64_t o = 0; o < sizes.outputs; o += chunk) {
      const int64_t end = std::min(sizes.outputs, o + chunk), words = (end - o + kPer - 1) / kPer;
      for (int64_t e = first; e < last; e += group) {
        const int64_t columns = std::min(group, last - e);
        pack_backward(parts, sizes, e, columns, o, end, panels, decoded);
        for (int64_t row = row_first; row < row_last; row += kRowsAtATime) {
          for (int64_t column = 0; column < columns; column += kPanelColumns) {
            const int64_t count = std::min(kPanelColumns, columns - column);
            panel_product(dy_NO + row * dy_row_stride + o, dy_row_stride, std::min(kRowsAtATime, row_last - row), panels + column * words, rounded_up(count, 16), end - o,
                          dp_NE + row * dp_row_stride + e + column, dp_row_stride, count, accumulate || o > 0);
          }
        }
      }
    }
  });
}

template void frozen_product(int64_t, const float*, int64_t, std::span<const FrozenPart>, float*, int64_t);
template void frozen_product(int64_t, const uint16_t*, int64_t, std::span<const FrozenPart>, float*, int64_t);
template void frozen_product_to_bf16(int64_t, const float*, int64_t, std::span<const FrozenPart>, const float*, uint16_t*, int64_t);
template void frozen_product_to_bf16(int64_t, const uint16_t*, int64_t, std::span<const FrozenPart>, const float*, uint16_t*, int64_t);
template void frozen_product_backward(int64_t, const float*, int64_t, std::span<const FrozenPart>, float*, int64_t, bool);
template void frozen_product_backward(int64_t, const uint16_t*, int64_t, std::span<const FrozenPart>, float*, int64_t, bool);

}  // namespace graft
