// Forward: gate and up in one product with the activation behind it, and the product that goes back to the hidden width. Bound by the matrix instructions.
#include "kernels/experts/expert_tiles.cuh"
#include "kernels/gated_activation/activation_values.cuh"

namespace graft::cuda {
namespace {

// Row `output` of B of an expert.
template <typename Element>
GRAFT_DEVICE const Element* b_of(const ExpertMatrices& bank, int expert, int64_t output) {
  return static_cast<const Element*>(bank.b_ER) + (expert * bank.outputs + output) * bank.ranks;
}

template <typename Shape>
GRAFT_KERNEL(kExpertMostThreads) expert_gate_up(const ExpertGateUp arguments, int chunks) {
  using Element = typename Shape::Element;
  using Memory = ExpertTileMemory<Shape, false>;
  auto& memory = GRAFT_SHARED(Memory);
  const auto& bank = arguments.bank;
  const int width = static_cast<int>(bank.outputs / 2);
  ExpertPiece piece;
  int chunk;
  if (!find_piece(arguments.rows.tiles, chunks, piece, chunk)) return;
  const int expert = piece.expert;
  const ResultColumns columns = {chunk * (kExpertColumns / 2), width};
  load_sources<Shape::kThreads>(memory.sources, arguments.rows, piece.first, piece.rows, true);
  block_barrier();

  const auto* gate = weight_of<Element>(bank, expert, 0);
  const auto* up = bank.parts == 2 ? weight_of<Element>(bank, expert, 1) : gate + bank.inputs * width;
  const auto *b_of_gate = b_of<Element>(bank, expert, 0), *b_of_up = b_of<Element>(bank, expert, width);
  const InnerPart<Element> parts[2] = {
      inner_part<Shape, false>(arguments.x_NC, bank.inputs, true, gate, up, bank.inputs, bank.inputs, width),
      inner_part<Shape, false>(arguments.z_MR, bank.ranks, false, b_of_gate, b_of_up, bank.ranks, bank.ranks, width)};
  Sums sums[2][8];   // a warp's first 32 columns are of gate, the others of up
  set_zero(sums);
  const int warp_row = row_of_warp<Shape>(), warp_column = column_of_warp<Shape>();
  add_inner_parts<Shape, false, true>(sums, memory, piece, columns, parts, warp_row, warp_column);

  const bool even = width % 2 == 0;
  const float* bias = bank.bias_EO ? bank.bias_EO + expert * bank.outputs : nullptr;
  const auto active = [&](float g, float u) {
    if (arguments.activation == ActivationKind::kSwiGlu) return activated<ActivationKind::kSwiGlu>(arguments, g, u);
    return activated<ActivationKind::kClampedSwiGlu>(arguments, g, u);
  };
  GRAFT_UNROLL
  for (int group = 0; group < 2; ++group) {
    GRAFT_UNROLL
    for (int part = 0; part < 4; ++part) {
      GRAFT_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int row = warp_row + group * 16 + half * 8 + lane_group();
        const int column = columns.first + warp_column / 2 + part * 8 + lane_pair();
        if (row >= piece.rows || column >= width) continue;
        float g[2], u[2];
        GRAFT_UNROLL
        for (int i = 0; i < 2; ++i) {
          const bool has_bias = bias && column + i < width;
          g[i] = rounded<Element>(sums[group][part].values[2 * half + i] + (has_bias ? load(bias + column + i) : 0.0F));
          u[i] = rounded<Element>(sums[group][part + 4].values[2 * half + i] + (has_bias ? load(bias + width + column + i) : 0.0F));
        }
        const int64_t m = piece.first + row;
        Element* h = static_cast<Element*>(arguments.h_MO) + m * bank.outputs;
        store_neighbours(h, column, width, even, g[0], g[1]);
        store_neighbours(h + width, column, width, even, u[0], u[1]);
        store_neighbours(static_cast<Element*>(arguments.q_MI) + m * width, column, width, even, active(g[0], u[0]), active(g[1], u[1]));
      }
    }
  }
}

template <typename Shape>
GRAFT_KERNEL(kExpertMostThreads) expert_down(const ExpertDown arguments, int chunks) {
  using Element = typename Shape::Element;
  using Memory = ExpertTileMemory<Shape, false>;
  auto& memory = GRAFT_SHARED(Memory);
  const auto& bank = arguments.bank;
  ExpertPiece piece;
  int chunk;
  if (!find_piece(arguments.rows.tiles, chunks, piece, chunk)) return;
  const int expert = piece.expert, width = static_cast<int>(bank.outputs);
  const ResultColumns columns = {chunk * kExpertColumns, width};

  const auto* weight = weight_of<Element>(bank, expert, 0);
  const auto* b = b_of<Element>(bank, expert, 0);
  const InnerPart<Element> parts[2] = {
      inner_part<Shape, false>(arguments.q_MI, bank.inputs, false, weight, weight, bank.inputs, bank.inputs, bank.outputs),
      inner_part<Shape, false>(arguments.z_MR, bank.ranks, false, b, b, bank.ranks, bank.ranks, bank.outputs)};
  Sums sums[2][8];
  set_zero(sums);
  const int warp_row = row_of_warp<Shape>(), warp_column = column_of_warp<Shape>();
  add_inner_parts<Shape, false, false>(sums, memory, piece, columns, parts, warp_row, warp_column);

  const float* bias = bank.bias_EO ? bank.bias_EO + expert * bank.outputs : nullptr;
  GRAFT_UNROLL
  for (int group = 0; group < 2; ++group) {
    for_pairs(sums[group], [&](int r, int c, float first, float second) {
      const int row = warp_row + group * 16 + r;
      const int column = columns.first + warp_column + c;
      if (row >= piece.rows || column >= width) return;
      if (bias) first += load(bias + column);
      if (bias && column + 1 < width) second += load(bias + column + 1);
      store_neighbours(static_cast<Element*>(arguments.o_MC) + (piece.first + row) * bank.outputs, column, width, width % 2 == 0, first, second);
    });
  }
}

}  // namespace

const char* launch(const ExpertGateUp& arguments, void* stream) {
  return launch_tiles(arguments.type, arguments.rows, arguments.bank.outputs, [&](auto shape, int64_t blocks, int chunks) {
    using Shape = decltype(shape);
    using Memory = ExpertTileMemory<Shape, false>;
    static_assert(sizeof(Memory) <= kLeastSharedBytes, "sm_89 and sm_120 have no more");
    LAUNCH(expert_gate_up<Shape>, blocks, Shape::kThreads, sizeof(Memory), stream, arguments, chunks);
  });
}

const char* launch(const ExpertDown& arguments, void* stream) {
  return launch_tiles(arguments.type, arguments.rows, arguments.bank.outputs, [&](auto shape, int64_t blocks, int chunks) {
    using Shape = decltype(shape);
    using Memory = ExpertTileMemory<Shape, false>;
    LAUNCH(expert_down<Shape>, blocks, Shape::kThreads, sizeof(Memory), stream, arguments, chunks);
  });
}

}  // namespace graft::cuda
