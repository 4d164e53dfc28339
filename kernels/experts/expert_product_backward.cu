// Backward of both products with frozen weights, which have no gradient: their own is 2 of the 3 units of a product. The activation's gradient, and what the
// router's weights take of it, stand behind the first. Bound by the matrix instructions.
#include "kernels/experts/expert_tiles.cuh"
#include "kernels/gated_activation/activation_values.cuh"

namespace graft::cuda {
namespace {

constexpr auto kPlain = ActivationKind::kSwiGlu, kClamped = ActivationKind::kClampedSwiGlu;

template <typename Element>
GRAFT_DEVICE const Element* a_of(const ExpertMatrices& bank, int expert) {
  return static_cast<const Element*>(bank.a_EC) + int64_t(expert) * bank.ranks * bank.inputs;
}

template <typename Shape>
GRAFT_KERNEL(kExpertMostThreads) expert_down_backward(const ExpertDownBackward arguments, int chunks) {
  using Element = typename Shape::Element;
  using Memory = ExpertTileMemory<Shape, true>;
  auto& memory = GRAFT_SHARED(Memory);
  const auto& bank = arguments.bank;
  const auto& rows = arguments.rows;
  const int width = static_cast<int>(bank.inputs);
  ExpertPiece piece;
  int chunk;
  if (!find_piece(rows.tiles, chunks, piece, chunk)) return;
  const ResultColumns columns = {chunk * kExpertColumns, width};
  load_sources<Shape::kThreads>(memory.sources, rows, piece.first, piece.rows, true);
  block_barrier();

  const auto* weight = weight_of<Element>(bank, piece.expert, 0);
  const auto* a = a_of<Element>(bank, piece.expert);
  const InnerPart<Element> parts[2] = {
      inner_part<Shape, true>(arguments.dy_NC, bank.outputs, true, weight, weight, width, bank.outputs, width),
      inner_part<Shape, true>(arguments.dz_MR, bank.ranks, false, a, a, width, bank.ranks, width)};
  Sums sums[2][8];
  set_zero(sums);
  const int warp_row = row_of_warp<Shape>(), warp_column = column_of_warp<Shape>();
  add_inner_parts<Shape, true, false>(sums, memory, piece, columns, parts, warp_row, warp_column);

  const bool even = width % 2 == 0, clamped = arguments.activation == kClamped;
  GRAFT_UNROLL
  for (int group = 0; group < 2; ++group) {
    GRAFT_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = warp_row + group * 16 + half * 8 + lane_group();
      const int64_t m = piece.first + row;
      const float router_weight = row < piece.rows ? load(arguments.weights_NK + load(rows.order_M + m)) : 0.0F;
      const Element* h = static_cast<const Element*>(arguments.h_MO) + m * 2 * width;
      Element* dh = static_cast<Element*>(arguments.dh_MO) + m * 2 * width;
      float product = 0;   // of q and dq, this row's
      GRAFT_UNROLL
      for (int part = 0; part < 8; ++part) {
        const int column = columns.first + warp_column + part * 8 + lane_pair();
        if (row >= piece.rows || column >= width) continue;
        const Neighbours gate = load_neighbours(h, column, width, even), up = load_neighbours(h + width, column, width, even);
        const float g[2] = {gate.first, gate.second}, u[2] = {up.first, up.second};
        float q[2], dgate[2], dup[2];
        GRAFT_UNROLL
        for (int i = 0; i < 2; ++i) {
          const float dq = sums[group][part].values[2 * half + i];
          const float y = clamped ? activated<kClamped>(arguments, g[i], u[i]) : activated<kPlain>(arguments, g[i], u[i]);
          const Slopes slope = clamped ? slopes<kClamped>(arguments, g[i], u[i]) : slopes<kPlain>(arguments, g[i], u[i]);
          q[i] = rounded<Element>(y);
          product += q[i] * dq;   // behind the width both are zero
          dgate[i] = router_weight * dq * slope.gate;
          dup[i] = router_weight * dq * slope.up;
        }
        store_neighbours(dh, column, width, even, dgate[0], dgate[1]);
        store_neighbours(dh + width, column, width, even, dup[0], dup[1]);
        store_neighbours(static_cast<Element*>(arguments.q_MI) + m * width, column, width, even, q[0], q[1]);
      }
      product = row_sum(product);
      const int64_t partial = int64_t(chunk) * 2 + warp_column / 64;
      if (lane_pair() == 0 && row < piece.rows) store(arguments.weight_partials + partial * rows.num_tokens * rows.choices + m, product);
    }
  }
}

template <typename Shape>
GRAFT_KERNEL(kExpertMostThreads) expert_gate_up_backward(const ExpertGateUpBackward arguments, int chunks) {
  using Element = typename Shape::Element;
  using Memory = ExpertTileMemory<Shape, true>;
  auto& memory = GRAFT_SHARED(Memory);
  const auto& bank = arguments.bank;
  const int width = static_cast<int>(bank.inputs), of_part = static_cast<int>(bank.outputs / bank.parts);
  ExpertPiece piece;
  int chunk;
  if (!find_piece(arguments.rows.tiles, chunks, piece, chunk)) return;
  const ResultColumns columns = {chunk * kExpertColumns, width};

  const auto* first = weight_of<Element>(bank, piece.expert, 0);
  const auto* last = weight_of<Element>(bank, piece.expert, bank.parts - 1);
  const auto* a = a_of<Element>(bank, piece.expert);
  const auto* dh = static_cast<const Element*>(arguments.dh_MO);
  const InnerPart<Element> parts[3] = {
      inner_part<Shape, true>(dh, bank.outputs, false, first, first, width, of_part, width),
      inner_part<Shape, true>(dh + of_part, bank.outputs, false, last, last, width, bank.parts == 2 ? of_part : 0, width),
      inner_part<Shape, true>(arguments.dz_MR, bank.ranks, false, a, a, width, bank.ranks, width)};
  Sums sums[2][8];
  set_zero(sums);
  const int warp_row = row_of_warp<Shape>(), warp_column = column_of_warp<Shape>();
  add_inner_parts<Shape, true, false>(sums, memory, piece, columns, parts, warp_row, warp_column);

  GRAFT_UNROLL
  for (int group = 0; group < 2; ++group) {
    for_pairs(sums[group], [&](int r, int c, float first_value, float second_value) {
      const int row = warp_row + group * 16 + r;
      const int column = columns.first + warp_column + c;
      if (row >= piece.rows || column >= width) return;
      store_neighbours(static_cast<Element*>(arguments.dp_MC) + int64_t(piece.first + row) * width, column, width, width % 2 == 0, first_value, second_value);
    });
  }
}

}  // namespace

const char* launch(const ExpertDownBackward& arguments, void* stream) {
  return launch_tiles(arguments.type, arguments.rows, arguments.bank.inputs, [&](auto shape, int64_t blocks, int chunks) {
    using Shape = decltype(shape);
    using Memory = ExpertTileMemory<Shape, true>;
    static_assert(sizeof(Memory) <= kLeastSharedBytes, "sm_89 and sm_120 have no more");
    LAUNCH(expert_down_backward<Shape>, blocks, Shape::kThreads, sizeof(Memory), stream, arguments, chunks);
  });
}

const char* launch(const ExpertGateUpBackward& arguments, void* stream) {
  return launch_tiles(arguments.type, arguments.rows, arguments.bank.inputs, [&](auto shape, int64_t blocks, int chunks) {
    using Shape = decltype(shape);
    using Memory = ExpertTileMemory<Shape, true>;
    LAUNCH(expert_gate_up_backward<Shape>, blocks, Shape::kThreads, sizeof(Memory), stream, arguments, chunks);
  });
}

}  // namespace graft::cuda
