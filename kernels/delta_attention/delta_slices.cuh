// The part of gradients within chunks that goes through a head's values, in slices, and keeps sums over all of them in registers: from the states that chunks
// found and the gradients of those behind them (dS'),
//
//   dU = P^T dO + K- dS';  Y = T^T dU;  dV = beta Y;  of Q+: dO S^T;  of K+: -beta Y S^T;  of K-: U dS'^T;  dP = dO U^T;  dA = -Y U^T
#pragma once
#include "kernels/cuda/reduce.cuh"
#include "kernels/delta_attention/delta_ends.cuh"

namespace graft::cuda {

template <typename Shape>
struct GradientMemory : DeltaMemory<Shape> {
  static constexpr int kRowTiles = Shape::kChunk / 16;
  typename Shape::Rows first, second;                 // K+ and K-, later queries and keys
  typename Shape::Square scores;                      // P, later its gradient
  typename Shape::State state;                        // a slice of S or of dS'
  typename Shape::Slice doutput, updates, solved;     // dO; beta X, then U; dU, then Y
  SharedArray<float, Shape::kSize> state_products;    // of S and dS', summed over columns of values, with the chunk's decay
  SharedArray<float, 2 * Shape::kChunk> beta_sums, log_sums, end_sums;                  // over a row, of each half of its columns
  SharedArray<float, Shape::kChannel ? kRowTiles * Shape::kSize : 1> end_columns;       // over rows, of each 16
};

// Of one warp: 16 rows, half of the columns.
template <typename Shape>
struct GradientSums {
  Sums queries[Shape::kSizeParts], solved[Shape::kSizeParts], ended[Shape::kSizeParts];   // dO S^T, Y S^T, U dS'^T
  Sums scores[Shape::kChunkParts], squares[Shape::kChunkParts];                           // dO U^T, Y U^T
  float betas[2] = {0, 0};                                                                // of this lane's two rows and its columns
};

// A slice of values. Begins with a barrier.
template <typename Shape>
GRAFT_DEVICE void add_slice(GradientMemory<Shape>& memory, GradientSums<Shape>& sums, const DeltaAttentionBackward& arguments, const DeltaPlace& place,
                            int slice) {
  using Element = typename Shape::Element;
  const auto& problem = arguments.problem;
  auto& inverse = memory.inverse.operand();
  const float* found = state_at<Shape>(arguments.states, problem, place.number, place.head);
  const float* dleft = state_at<Shape>(static_cast<const float*>(arguments.dstates), problem, place.number, place.head);
  const int column = place.column(Shape::kSlice), key_column = place.column(Shape::kSize), chunk_column = place.column(Shape::kChunk);

  block_barrier();   // no warp needs the slice of before
  copy_tokens<Shape>(memory.doutput, arguments.doutput, problem.num_value_heads, place.head, place.chunk, slice);
  copy_commit();
  read_state<Shape>(memory.state, dleft, slice);
  copy_wait<0>();
  block_barrier();
  Sums values[Shape::kSliceParts], y[Shape::kSliceParts];
  set_zero(values);
  set_zero(y);
  add_product<Shape::kChunk, true, true>(values, memory.scores, place.row, 0, memory.doutput, column, 0);
  GRAFT_UNROLL_BY(1)   // more would need registers that sums have
  for (int d = 0; d < Shape::kSize; d += 32) add_product<32, false, true>(values, memory.second, place.row, d, memory.state, column, d);
  write_sums(memory.solved, place.row, column, values, as_is);
  block_barrier();
  add_product<Shape::kChunk, true, true>(y, inverse, place.row, 0, memory.solved, column, 0);
  GRAFT_UNROLL
  for (int part = 0; part < Shape::kSliceParts; ++part) {
    GRAFT_UNROLL
    for (int i = 0; i < 4; ++i) values[part].values[i] = y[part].values[i] * memory.betas.read(place.row + lane_group() + i / 2 * 8);
  }
  store_sums<Shape>(arguments.dvalues, problem, place, slice + column, values);
  block_barrier();   // no warp needs dU and dS' any more
  write_sums(memory.solved, place.row, column, y, as_is);
  read_state<Shape>(memory.state, found, slice);
  block_barrier();
  add_product<Shape::kSlice, false, false>(sums.queries, memory.doutput, place.row, 0, memory.state, key_column, 0);
  add_product<Shape::kSlice, false, false>(sums.solved, memory.solved, place.row, 0, memory.state, key_column, 0);
  set_zero(values);
  GRAFT_UNROLL_BY(1)
  for (int d = 0; d < Shape::kSize; d += 32) add_product<32, false, true>(values, memory.first, place.row, d, memory.state, column, d);
  GRAFT_UNROLL
  for (int part = 0; part < Shape::kSliceParts; ++part) {
    GRAFT_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int t = place.row + lane_group() + half * 8, c = column + part * 8 + lane_pair();
      Pack<Element, 2> of_token = {{from_float<Element>(0), from_float<Element>(0)}};
      if (t < place.chunk.count) {
        const auto* row = padded_row<Shape::kSize>(static_cast<const Element*>(problem.values), problem.num_value_heads, place.head, place.token(t));
        of_token = load(reinterpret_cast<const Pack<Element, 2>*>(row + slice + c));
      }
      const float beta = memory.betas.read(t);
      Pack<Element, 2> missed;
      GRAFT_UNROLL
      for (int k = 0; k < 2; ++k) {
        const float miss = to_float(of_token.values[k]) - values[part].values[2 * half + k];
        sums.betas[half] += memory.solved.at(t, c + k) * miss;
        missed.values[k] = from_float<Element>(beta * miss);
      }
      memory.updates.elements.write_pack(memory.updates.index(t, c), missed);
    }
  }
  block_barrier();
  set_zero(values);
  add_product<Shape::kChunk, false, true>(values, inverse, place.row, 0, memory.updates, column, 0);
  block_barrier();   // no warp needs beta X and S any more
  write_sums(memory.updates, place.row, column, values, as_is);
  read_state<Shape>(memory.state, dleft, slice);
  block_barrier();
  add_product<Shape::kSlice, false, false>(sums.ended, memory.updates, place.row, 0, memory.state, key_column, 0);
  add_product<Shape::kSlice, false, false>(sums.scores, memory.doutput, place.row, 0, memory.updates, chunk_column, 0);
  add_product<Shape::kSlice, false, false>(sums.squares, memory.solved, place.row, 0, memory.updates, chunk_column, 0);
}

// Of each row of the chunk's state: its product with the gradient behind the chunk, which the decay over the chunk takes.
template <typename Shape>
GRAFT_DEVICE void multiply_states(GradientMemory<Shape>& memory, const DeltaAttentionBackward& arguments, const DeltaPlace& place) {
  const float* found = state_at<Shape>(arguments.states, arguments.problem, place.number, place.head);
  const float* dleft = state_at<Shape>(static_cast<const float*>(arguments.dstates), arguments.problem, place.number, place.head);
  for (int d = thread_in_block() / kWarp; d < Shape::kSize; d += Shape::kWarps) {
    float sum = 0;
    for (int c = thread_in_block() % kWarp * 4; c < Shape::kSize; c += kWarp * 4) {
      const auto of_state = load_four(found + d * Shape::kSize + c), of_gradient = load_four(dleft + d * Shape::kSize + c);
      GRAFT_UNROLL
      for (int k = 0; k < 4; ++k) sum += of_state.values[k] * of_gradient.values[k];
    }
    sum = warp_sum(sum);
    if (thread_in_block() % kWarp == 0) memory.state_products.write(d, sum * memory.logs.from_begin(Shape::kChunk - 1, d));
  }
}

}  // namespace graft::cuda
