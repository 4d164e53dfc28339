// A tile of a product of experts: rows of one expert, gathered or not, times its matrices, along an inner dimension that is made of parts (the frozen weights,
// then the ranks). Two stages: the next step's operands travel while this one's are multiplied.
#pragma once
#include "kernels/cuda/matrix_part.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/tile_product.cuh"
#include "kernels/experts/experts.cuh"

namespace graft::cuda {

// Of every tile, for the compiler: it would save registers, and spill, for more small blocks than shared memory has room for.
constexpr int kExpertMostThreads = 256;

template <typename E, int kRowCount, int kColumnCount>
struct ExpertShape {
  using Element = E;
  static constexpr int kRows = kRowCount, kColumns = kColumnCount, kInner = sizeof(E) == 2 ? 64 : 32;
  static constexpr int kThreads = 2 * kRows;
};

// kTransposed: inner dimension times columns of the result, as backward has the weights; else columns times inner dimension, as forward has them.
template <typename Shape, bool kTransposed>
struct ExpertTileMemory {
  using Element = typename Shape::Element;
  SharedArray<int32_t, Shape::kRows> sources;   // of the tile's rows: the operand's
  Tile<Element, Shape::kRows, Shape::kInner> left[2];
  Tile<Element, kTransposed ? Shape::kInner : Shape::kColumns, kTransposed ? Shape::kColumns : Shape::kInner> right[2];
};

// This block's rows and chunk of columns. False: there are none.
GRAFT_DEVICE bool find_piece(const ExpertPiece* pieces, int chunks, ExpertPiece& piece, int& chunk) {
  piece = load(pieces + block_in_grid() / chunks);
  chunk = static_cast<int>(block_in_grid() % chunks);
  return piece.expert >= 0;
}

template <typename Element>
GRAFT_DEVICE const Element* weight_of(const ExpertMatrices& bank, int expert, int part) {
  return static_cast<const Element*>(load(bank.weights + expert * bank.parts + part));
}

// Where the rows [first, first + count) of a piece come from, if gathered; a barrier must follow.
template <int kThreads, int kCount>
GRAFT_DEVICE void load_sources(SharedArray<int32_t, kCount>& sources, const ExpertRows& rows, int64_t first, int count, bool gathered) {
  for (int row = thread_in_block(); row < kCount; row += kThreads) {
    const auto own = static_cast<int32_t>(first + row);
    sources.write(row, row >= count ? 0 : gathered ? load(rows.order_M + own) / rows.choices : own);
  }
}

template <typename Element>
GRAFT_DEVICE bool in_packs(const Element* data, int64_t stride, int64_t length) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % kWidestPack<Element> == 0 && length % kWidestPack<Element> == 0;
}

// A part of the inner dimension. Gated results have gate and up of a column side by side: their weights are right and second.
template <typename Element>
struct InnerPart {
  const Element *left, *right, *second;
  int left_stride, right_stride, length;   // of 32 bits, as rows are: registers are short
  bool of_sources;                     // rows of left are the sources, else the tile's own
  bool whole_left, whole_right;
};
template <typename Shape, bool kTransposed, typename Element = typename Shape::Element>
GRAFT_DEVICE InnerPart<Element> inner_part(const void* left, int64_t left_stride, bool of_sources, const void* right, const void* second, int64_t right_stride,
                                           int64_t length, int64_t width) {
  InnerPart<Element> part;
  part.left = static_cast<const Element*>(left);
  part.right = static_cast<const Element*>(right);
  part.second = static_cast<const Element*>(second);
  part.left_stride = static_cast<int>(left_stride);
  part.right_stride = static_cast<int>(right_stride);
  part.length = static_cast<int>(length);
  part.of_sources = of_sources;
  part.whole_left = in_packs(part.left, left_stride, length);
  part.whole_right = in_packs(part.right, right_stride, kTransposed ? width : length) && in_packs(part.second, right_stride, 0);
  return part;
}

// The columns of a block's result: where they begin, of how many. Gated: of gate, and as many of up.
struct ResultColumns {
  int first, width;
};

// sums of this warp, kGroups * 16 rows from warp_row on and 8 * kParts columns from warp_column on, += left right over all parts. Sources are loaded.
template <typename Shape, bool kTransposed, bool kGated, int kGroups, int kParts, int kCount>
GRAFT_DEVICE void add_inner_parts(Sums (&sums)[kGroups][kParts], ExpertTileMemory<Shape, kTransposed>& memory, const ExpertPiece& piece,
                                  const ResultColumns& columns, const InnerPart<typename Shape::Element> (&parts)[kCount], int warp_row, int warp_column) {
  using Element = typename Shape::Element;
  constexpr int kInner = Shape::kInner;
  int first_step[kCount], steps = 0;
  GRAFT_UNROLL
  for (int i = 0; i < kCount; ++i) {
    first_step[i] = steps;
    steps += (parts[i].length + kInner - 1) / kInner;
  }

  // The part of a step, and the first of its inner elements that the step has.
  const auto part_of = [&](int step, int& inner) {
    InnerPart<Element> part = parts[0];
    inner = step * kInner;
    GRAFT_UNROLL
    for (int i = 1; i < kCount; ++i) {
      if (step < first_step[i]) continue;
      part = parts[i];
      inner = (step - first_step[i]) * kInner;
    }
    return part;
  };
  const auto copy = [&](int step, int stage) {
    int inner = 0;
    const InnerPart<Element> part = part_of(step, inner);
    copy_rows<Shape::kThreads>(memory.left[stage], part.length - inner, part.whole_left, [&](int row) -> const Element* {
      if (row >= piece.rows) return nullptr;
      return part.left + int64_t(part.of_sources ? memory.sources.read(row) : piece.first + row) * part.left_stride + inner;
    });
    if constexpr (kTransposed) {
      const int rows = part.length - inner;
      copy_rows<Shape::kThreads>(memory.right[stage], columns.width - columns.first, part.whole_right, [&](int row) -> const Element* {
        return row < rows ? part.right + int64_t(inner + row) * part.right_stride + columns.first : nullptr;
      });
    } else {
      copy_rows<Shape::kThreads>(memory.right[stage], part.length - inner, part.whole_right, [&](int row) -> const Element* {
        const bool of_second = kGated && row / kExpertHalf % 2 == 1;
        const int column = columns.first + (kGated ? row / (2 * kExpertHalf) * kExpertHalf + row % kExpertHalf : row);
        return column < columns.width ? (of_second ? part.second : part.right) + int64_t(column) * part.right_stride + inner : nullptr;
      });
    }
  };

  if (steps > 0) copy(0, 0);
  copy_commit();
  for (int step = 0; step < steps; ++step) {
    const int stage = step % 2;
    if (step + 1 < steps) copy(step + 1, 1 - stage);
    copy_commit();
    copy_wait<1>();
    block_barrier();
    int inner = 0;
    const int left = part_of(step, inner).length - inner;
    GRAFT_UNROLL
    for (int k = 0; k < kInner; k += 16) {   // ranks are often few
      if (k < left) add_product<16, false, kTransposed>(sums, memory.left[stage], warp_row, k, memory.right[stage], warp_column, k);
    }
    block_barrier();   // no warp needs these operands any more
  }
}

// The first of the 32 rows and 64 columns that this warp has of a tile of kExpertColumns.
template <typename Shape>
GRAFT_DEVICE int row_of_warp() {
  return thread_in_block() / kWarp % (Shape::kRows / 32) * 32;
}
template <typename Shape>
GRAFT_DEVICE int column_of_warp() {
  return thread_in_block() / kWarp / (Shape::kRows / 32) * 64;
}

// Two neighbours, the first of which exists, of a row of `width`; `even`: all such pairs lie at multiples of their size.
template <typename Element>
GRAFT_DEVICE void store_neighbours(Element* row, int column, int width, bool even, float first, float second) {
  if (even) return store_pair(row + column, first, second);
  store(row + column, from_float<Element>(first));
  if (column + 1 < width) store(row + column + 1, from_float<Element>(second));
}
struct Neighbours {
  float first, second;
};
template <typename Element>
GRAFT_DEVICE Neighbours load_neighbours(const Element* row, int column, int width, bool even) {
  if (even) {
    const auto pair = load(reinterpret_cast<const Pack<Element, 2>*>(row + column));
    return {to_float(pair.values[0]), to_float(pair.values[1])};
  }
  return {to_float(load(row + column)), column + 1 < width ? to_float(load(row + column + 1)) : 0.0F};
}
template <typename Element>
GRAFT_DEVICE float rounded(float value) {
  return to_float(from_float<Element>(value));
}

// Host: f(shape) with the tiles of a routing and kColumns columns.
template <int kColumns, typename Function>
void for_expert_shape(RowType type, const ExpertRows& rows, const Function& function) {
  for_row_type(type, [&](auto element) {
    using Element = decltype(element);
    if (rows.tile_rows == 64) return function(ExpertShape<Element, 64, kColumns>());
    function(ExpertShape<Element, 128, kColumns>());
  });
}
inline const char* refused(const ExpertRows& rows) { return rows.tile_rows == 64 || rows.tile_rows == 128 ? nullptr : "no expert kernel of this tile"; }

// start(shape, blocks, chunks) for every tile and chunk of a result's `columns`.
template <typename Function>
const char* launch_tiles(RowType type, const ExpertRows& rows, int64_t columns, const Function& start) {
  if (const char* problem = refused(rows)) return problem;
  const int64_t chunks = expert_chunks(columns), blocks = rows.num_tiles * chunks;
  if (blocks == 0) return nullptr;
  for_expert_shape<kExpertColumns>(type, rows, [&](auto shape) { start(shape, blocks, static_cast<int>(chunks)); });
  return launch_error();
}

}  // namespace graft::cuda
