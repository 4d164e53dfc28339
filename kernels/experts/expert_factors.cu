// The low-rank side of experts. Shrink: z = scale * p A^T, and in backward dz = scale * dy B. Factor gradients: dA = dz^T p and dB = dy^T z, the rows of an
// expert in spans that a second pass adds in their order, so that an expert with most of the rows keeps many blocks busy. Both read the wide operand once:
// bound by memory.
#include "kernels/experts/expert_tiles.cuh"

namespace graft::cuda {
namespace {

template <typename Shape, bool kTransposed>
GRAFT_KERNEL(Shape::kThreads) expert_shrink(const ExpertShrink arguments, int first_rank) {
  using Element = typename Shape::Element;
  using Memory = ExpertTileMemory<Shape, kTransposed>;
  auto& memory = GRAFT_SHARED(Memory);
  ExpertPiece piece;
  int chunk;
  if (!find_piece(arguments.rows.tiles, 1, piece, chunk)) return;
  const int ranks = arguments.ranks;
  const int64_t columns = arguments.columns;
  load_sources<Shape::kThreads>(memory.sources, arguments.rows, piece.first, piece.rows, arguments.from.gathered);
  block_barrier();

  const auto* factors = static_cast<const Element*>(arguments.factors) + piece.expert * columns * ranks + (kTransposed ? first_rank : first_rank * columns);
  const InnerPart<Element> parts[1] = {
      inner_part<Shape, kTransposed>(arguments.from.rows, columns, true, factors, factors, kTransposed ? ranks : columns, columns, ranks)};
  Sums sums[1][Shape::kColumns / 8];
  set_zero(sums);
  const int warp_row = thread_in_block() / kWarp * 16;
  add_inner_parts<Shape, kTransposed, false>(sums, memory, piece, {0, ranks - first_rank}, parts, warp_row, 0);

  for_pairs(sums[0], [&](int r, int c, float first, float second) {
    const int row = warp_row + r, rank = first_rank + c;
    if (row >= piece.rows || rank >= ranks) return;
    Element* z = static_cast<Element*>(arguments.z_MR) + int64_t(piece.first + row) * ranks;
    store_neighbours(z, rank, ranks, ranks % 2 == 0, first * arguments.scale, second * arguments.scale);
  });
}

constexpr int kRows = 64, kColumns = kExpertColumns, kThreads = kColumns * 2;   // a warp has 16 columns and all ranks

template <typename Element, int kWidth>
struct FactorMemory {
  SharedArray<int32_t, kRows> sources;
  Tile<Element, kRows, kColumns> wide;
  Tile<Element, kRows, kWidth> narrow;
};

template <typename Element, int kWidth>
GRAFT_KERNEL(kThreads) expert_factor_gradient(const ExpertFactorGradient arguments, int chunks, int first_rank) {
  using Memory = FactorMemory<Element, kWidth>;
  using Narrow = Tile<Element, kRows, kWidth>;
  auto& memory = GRAFT_SHARED(Memory);
  const auto& rows = arguments.rows;
  const int ranks = arguments.ranks;
  ExpertPiece span;
  int chunk;
  if (!find_piece(rows.spans, chunks, span, chunk)) return;
  const int64_t column = int64_t(chunk) * kColumns;
  const int columns = left_of(arguments.columns, column), warp_column = thread_in_block() / kWarp * 16;
  const auto* wide = static_cast<const Element*>(arguments.wide.rows);
  const bool whole = in_packs(wide, arguments.columns, arguments.columns);
  Sums sums[kWidth / 8];
  set_zero(sums);

  for (int64_t first = span.first; first < span.first + span.rows; first += kRows) {
    const int count = left_of(span.first + span.rows, first);
    load_sources<kThreads>(memory.sources, rows, first, count, arguments.wide.gathered);
    block_barrier();   // sources are there, and no warp needs the rows of before
    copy_rows<kThreads>(memory.wide, columns, whole, [&](int row) -> const Element* {
      return row < count ? wide + memory.sources.read(row) * arguments.columns + column : nullptr;
    });
    copy_commit();
    for (int i = thread_in_block(); i < kRows * kWidth; i += kThreads) {
      const int row = i / kWidth, rank = first_rank + i % kWidth;
      float value = 0;
      if (row < count && rank < ranks) {
        value = to_float(load(static_cast<const Element*>(arguments.narrow_MR) + (first + row) * ranks + rank));
        if (arguments.weights_NK) value *= load(arguments.weights_NK + load(rows.order_M + first + row));
      }
      memory.narrow.elements.write(Narrow::index(row, i % kWidth), from_float<Element>(value));
    }
    copy_wait<0>();
    block_barrier();
    add_product<kRows, true, true>(sums, memory.wide, warp_column, 0, memory.narrow, 0, 0);
  }

  float* partials = arguments.partials + (block_in_grid() / chunks * arguments.columns + column) * kWidth;
  for_pairs(sums, [&](int r, int c, float first, float second) {
    if (warp_column + r < columns) store_pair(partials + (warp_column + r) * kWidth + c, first, second);
  });
}

constexpr int kSumThreads = 256;
constexpr int64_t blocks_for(int64_t sums) { return (sums + kSumThreads - 1) / kSumThreads; }

GRAFT_KERNEL(kSumThreads) expert_sum_spans(const ExpertFactorGradient arguments, int window, int first_rank) {
  const int64_t index = block_in_grid() * kSumThreads + thread_in_block(), of_expert = arguments.columns * window;
  if (index >= arguments.rows.num_experts * of_expert) return;
  const int64_t expert = index / of_expert, column = index % of_expert / window;
  const int rank = first_rank + static_cast<int>(index % window), ranks = arguments.ranks;
  if (rank >= ranks) return;
  const int end = load(arguments.rows.first_span_E1 + expert + 1);
  float sum = 0;
  for (int span = load(arguments.rows.first_span_E1 + expert); span < end; ++span) sum += load(arguments.partials + span * of_expert + index % of_expert);
  const int64_t in_a = (expert * ranks + rank) * arguments.columns + column, in_b = (expert * arguments.columns + column) * ranks + rank;
  store(arguments.gradient + (arguments.of_a ? in_a : in_b), sum);
}

// Host: f(width) with the ranks that one launch takes.
template <int kWidth>
struct Window {
  static constexpr int kValue = kWidth;
};
template <typename Function>
void for_window(int ranks, const Function& function) {
  switch (expert_window(ranks)) {
    case 16: return function(Window<16>());
    case 32: return function(Window<32>());
    default: return function(Window<64>());
  }
}

template <typename Shape, bool kTransposed>
void launch_shrink(const ExpertShrink& arguments, int first_rank, void* stream) {
  using Memory = ExpertTileMemory<Shape, kTransposed>;
  static_assert(sizeof(Memory) <= kLeastSharedBytes, "sm_89 and sm_120 have no more");
  LAUNCH((expert_shrink<Shape, kTransposed>), arguments.rows.num_tiles, Shape::kThreads, sizeof(Memory), stream, arguments, first_rank);
}

}  // namespace

const char* launch(const ExpertShrink& arguments, void* stream) {
  if (const char* problem = refused(arguments.rows)) return problem;
  if (arguments.rows.num_tiles == 0) return nullptr;
  for_window(arguments.ranks, [&](auto width) {
    constexpr int kWidth = decltype(width)::kValue;
    for (int first_rank = 0; first_rank < arguments.ranks; first_rank += kWidth) {
      for_expert_shape<kWidth>(arguments.type, arguments.rows, [&](auto shape) {
        using Shape = decltype(shape);
        if (arguments.transposed) return launch_shrink<Shape, true>(arguments, first_rank, stream);
        launch_shrink<Shape, false>(arguments, first_rank, stream);
      });
    }
  });
  return launch_error();
}

const char* launch(const ExpertFactorGradient& arguments, void* stream) {
  const int64_t chunks = expert_chunks(arguments.columns), blocks = arguments.rows.num_spans * chunks;
  for_window(arguments.ranks, [&](auto width) {
    constexpr int kWidth = decltype(width)::kValue;
    for (int first_rank = 0; first_rank < arguments.ranks; first_rank += kWidth) {
      for_row_type(arguments.type, [&](auto element) {
        using Memory = FactorMemory<decltype(element), kWidth>;
        static_assert(sizeof(Memory) <= kLeastSharedBytes, "sm_89 and sm_120 have no more");
        if (blocks == 0) return;
        LAUNCH((expert_factor_gradient<decltype(element), kWidth>), blocks, kThreads, sizeof(Memory), stream, arguments, static_cast<int>(chunks), first_rank);
      });
      const int64_t sums = arguments.rows.num_experts * arguments.columns * kWidth;
      if (sums > 0) LAUNCH(expert_sum_spans, blocks_for(sums), kSumThreads, 0, stream, arguments, kWidth, first_rank);
    }
  });
  return launch_error();
}

}  // namespace graft::cuda
