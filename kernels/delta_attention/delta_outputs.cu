// What chunks read out, O = Q+ S + P U, with the gated norm behind it, from the states that the scan left. The backward pass computes O again, goes back through
// the norm, and begins the scan of states' gradients: B = Q+^T dO - W^T P^T dO.
#include "kernels/delta_attention/delta_ends.cuh"

namespace graft::cuda {
namespace {

template <typename Shape>
struct OutputMemory : DeltaMemory<Shape> {
  typename Shape::Rows queries, keys;
  typename Shape::Square scores;
  typename Shape::State state;
  typename Shape::Slice left, right;   // beta (V - K+ S) and U; in the backward pass then dO and -P^T dO
  SharedArray<float, 2 * Shape::kChunk> squares, products;   // over a row, of each half of its columns
};

// A row's two sums over halves of columns, one a warp. Begins with writes, so that a second call needs other memory.
template <typename Shape>
GRAFT_DEVICE void share_row_sums(SharedArray<float, 2 * Shape::kChunk>& memory, const DeltaPlace& place, float (&sums)[2]) {
  GRAFT_UNROLL
  for (int i = 0; i < 2; ++i) {
    sums[i] = row_sum(sums[i]);
    if (lane_pair() == 0) memory.write(place.half * Shape::kChunk + place.row + lane_group() + i * 8, sums[i]);
  }
  block_barrier();
  GRAFT_UNROLL
  for (int i = 0; i < 2; ++i) {
    const int t = place.row + lane_group() + i * 8;
    sums[i] = memory.read(t) + memory.read(Shape::kChunk + t);
  }
}

template <typename Shape>
using Outputs = Sums[Shape::kSize / Shape::kSlice][Shape::kSliceParts];   // of a warp: half of the columns of every slice

// f(row of this lane's two, row, column of the head, first, second), on pairs of columns that exist of tokens that exist.
template <typename Shape, typename Function>
GRAFT_DEVICE void for_outputs(Outputs<Shape>& outputs, const DeltaProblem& problem, const DeltaPlace& place, const Function& f) {
  GRAFT_UNROLL
  for (int slice = 0; slice < Shape::kSize / Shape::kSlice; ++slice) {
    GRAFT_UNROLL
    for (int part = 0; part < Shape::kSliceParts; ++part) {
      GRAFT_UNROLL
      for (int i = 0; i < 2; ++i) {
        const int t = place.row + lane_group() + i * 8, column = slice * Shape::kSlice + place.column(Shape::kSlice) + part * 8 + lane_pair();
        if (t < place.chunk.count && column < problem.value_size) f(i, t, column, outputs[slice][part].values[2 * i], outputs[slice][part].values[2 * i + 1]);
      }
    }
  }
}

// Leaves Q+ where queries were, and beta K+ where keys were.
template <typename Shape>
GRAFT_DEVICE void read_out(OutputMemory<Shape>& memory, Outputs<Shape>& outputs, const DeltaProblem& problem, const float* states, const DeltaPlace& place) {
  using Element = typename Shape::Element;
  scale_rows<Shape>(memory.queries, [&](int t, int d) { return memory.logs.from_begin(t, d); });
  scale_rows<Shape>(memory.keys, [&](int t, int d) { return memory.betas.read(t) * memory.logs.from_begin(t, d); });
  const float* state = state_at<Shape>(states, problem, place.number, place.head);
  const int column = place.column(Shape::kSlice);
  GRAFT_UNROLL
  for (int slice = 0; slice < Shape::kSize / Shape::kSlice; ++slice) {
    block_barrier();   // no warp needs the state of before
    read_state<Shape>(memory.state, state, slice * Shape::kSlice);
    block_barrier();
    auto& output = outputs[slice];
    Sums sums[Shape::kSliceParts];
    set_zero(sums);
    set_zero(output);
    GRAFT_UNROLL_BY(1)   // more would need registers that outputs have
    for (int d = 0; d < Shape::kSize; d += 32) {
      add_product<32, false, true>(sums, memory.keys, place.row, d, memory.state, column, d);
      add_product<32, false, true>(output, memory.queries, place.row, d, memory.state, column, d);
    }
    for_pairs(sums, [&](int r, int c, float first, float second) {
      const int t = place.row + r;
      auto values = pack_of<Element>(0, 0);
      if (t < place.chunk.count) {
        const auto* row = padded_row<Shape::kSize>(static_cast<const Element*>(problem.values), problem.num_value_heads, place.head, place.token(t));
        values = load(reinterpret_cast<const Pack<Element, 2>*>(row + slice * Shape::kSlice + column + c));
      }
      const float beta = memory.betas.read(t);
      const auto missed = pack_of<Element>(beta * to_float(values.values[0]) - first, beta * to_float(values.values[1]) - second);
      memory.left.elements.write_pack(memory.left.index(t, column + c), missed);
    });
    block_barrier();
    set_zero(sums);
    add_product<Shape::kChunk, false, true>(sums, memory.inverse.operand(), place.row, 0, memory.left, column, 0);
    write_sums(memory.right, place.row, column, sums, as_is);
    block_barrier();
    add_product<Shape::kChunk, false, true>(output, memory.scores, place.row, 0, memory.right, column, 0);
  }
}

// The gate of a z, and its slope.
struct GateOf {
  float value, slope;
  GRAFT_DEVICE GateOf(float z, bool silu) {
    const float share = sigmoid(z);
    value = silu ? z * share : share;
    slope = silu ? share * (1 + z * (1 - share)) : share * (1 - share);
  }
};

template <typename Element>
GRAFT_DEVICE Pack<float, 2> pair_at(const void* rows, int64_t index) {
  const auto pair = load(reinterpret_cast<const Pack<Element, 2>*>(static_cast<const Element*>(rows) + index));
  return {{to_float(pair.values[0]), to_float(pair.values[1])}};
}
GRAFT_DEVICE int64_t output_index(const DeltaProblem& problem, const DeltaPlace& place, int t, int column) {
  return (place.token(t) * problem.num_value_heads + place.head) * problem.value_size + column;
}

template <typename Shape>
GRAFT_DEVICE void begin_outputs(OutputMemory<Shape>& memory, const DeltaProblem& problem, const DeltaPlace& place) {
  const int key_head = key_head_of(problem, place.head);
  copy_tokens<Shape>(memory.queries, problem.queries, problem.num_key_heads, key_head, place.chunk);
  copy_tokens<Shape>(memory.keys, problem.keys, problem.num_key_heads, key_head, place.chunk);
  copy_commit();
  read_gates<Shape>(memory, problem, place);
  copy_wait<0>();
  block_barrier();
  solve_chunk<Shape, true>(memory, &memory.scores, &memory.queries, memory.keys, place);
}

// 1 / sqrt(mean of squares + epsilon) of this lane's two rows.
template <typename Shape>
GRAFT_DEVICE void inverse_norms(OutputMemory<Shape>& memory, Outputs<Shape>& outputs, const DeltaProblem& problem, const DeltaPlace& place, float (&inverse)[2]) {
  inverse[0] = inverse[1] = 0;
  for_outputs<Shape>(outputs, problem, place, [&](int i, int, int, float first, float second) { inverse[i] += first * first + second * second; });
  share_row_sums<Shape>(memory.squares, place, inverse);
  GRAFT_UNROLL
  for (int i = 0; i < 2; ++i) inverse[i] = inverse_square_root(inverse[i] / static_cast<float>(problem.value_size) + problem.norm_epsilon);
}

template <typename Shape>
GRAFT_KERNEL(Shape::kThreads, 1) delta_outputs(const DeltaAttentionForward arguments) {
  using Element = typename Shape::Element;
  const auto& problem = arguments.problem;
  auto& memory = GRAFT_SHARED(OutputMemory<Shape>);
  const DeltaPlace place(problem);
  begin_outputs<Shape>(memory, problem, place);
  Outputs<Shape> outputs;
  read_out<Shape>(memory, outputs, problem, arguments.states, place);
  float inverse[2];
  inverse_norms<Shape>(memory, outputs, problem, place, inverse);
  for_outputs<Shape>(outputs, problem, place, [&](int i, int t, int column, float first, float second) {
    const auto weight = load(reinterpret_cast<const Pack<float, 2>*>(problem.norm_weight_V + column));
    const int64_t index = output_index(problem, place, t, column);
    const auto z = pair_at<Element>(problem.z_NV, index);
    store_pair(static_cast<Element*>(arguments.out_NV) + index, first * inverse[i] * weight.values[0] * GateOf(z.values[0], problem.silu_gate).value,
                        second * inverse[i] * weight.values[1] * GateOf(z.values[1], problem.silu_gate).value);
  });
}

// outputs become their gradients; dz goes to memory.
template <typename Shape>
GRAFT_DEVICE void norm_backward(OutputMemory<Shape>& memory, Outputs<Shape>& outputs, const DeltaAttentionBackward& arguments, const DeltaPlace& place) {
  using Element = typename Shape::Element;
  const auto& problem = arguments.problem;
  float inverse[2], along[2] = {0, 0};
  inverse_norms<Shape>(memory, outputs, problem, place, inverse);
  // What the gradient of o / norm is, from memory again where it is needed again.
  const auto gradient_at = [&](int64_t index, int column, float (&gradient)[2], float (&dz)[2], float first, float second) {
    const auto weight = load(reinterpret_cast<const Pack<float, 2>*>(problem.norm_weight_V + column));
    const auto z = pair_at<Element>(problem.z_NV, index), dout = pair_at<Element>(arguments.dout_NV, index);
    const GateOf gates[2] = {GateOf(z.values[0], problem.silu_gate), GateOf(z.values[1], problem.silu_gate)};
    const float normed[2] = {first * weight.values[0], second * weight.values[1]};
    GRAFT_UNROLL
    for (int k = 0; k < 2; ++k) {
      gradient[k] = dout.values[k] * gates[k].value * weight.values[k];
      dz[k] = dout.values[k] * normed[k] * gates[k].slope;
    }
  };
  for_outputs<Shape>(outputs, problem, place, [&](int i, int t, int column, float first, float second) {
    float gradient[2], dz[2];
    const int64_t index = output_index(problem, place, t, column);
    gradient_at(index, column, gradient, dz, first * inverse[i], second * inverse[i]);
    along[i] += gradient[0] * first + gradient[1] * second;
    store_pair(static_cast<Element*>(arguments.dz_NV) + index, dz[0], dz[1]);
  });
  share_row_sums<Shape>(memory.products, place, along);
  for_outputs<Shape>(outputs, problem, place, [&](int i, int t, int column, float& first, float& second) {
    float gradient[2], dz[2];
    gradient_at(output_index(problem, place, t, column), column, gradient, dz, first, second);
    const float factor = along[i] * inverse[i] * inverse[i] / static_cast<float>(problem.value_size);
    first = inverse[i] * (gradient[0] - first * factor);
    second = inverse[i] * (gradient[1] - second * factor);
  });
}

template <typename Shape>
GRAFT_KERNEL(Shape::kThreads, 1) delta_outputs_backward(const DeltaAttentionBackward arguments) {
  const auto& problem = arguments.problem;
  auto& memory = GRAFT_SHARED(OutputMemory<Shape>);
  const DeltaPlace place(problem);
  begin_outputs<Shape>(memory, problem, place);
  end_keys<Shape>(memory.keys, memory, problem, place, [](int, int, const auto&) {});
  Outputs<Shape> outputs;
  read_out<Shape>(memory, outputs, problem, arguments.states, place);
  norm_backward<Shape>(memory, outputs, arguments, place);

  const int key_column = place.column(Shape::kSize), column = place.column(Shape::kSlice);
  Sums solved_keys[Shape::kSizeParts];
  set_zero(solved_keys);
  add_product<Shape::kChunk, false, true>(solved_keys, memory.inverse.operand(), place.row, 0, memory.keys, key_column, 0);
  store_sums<Shape>(problem.solved_keys, problem, place, key_column, solved_keys);
  block_barrier();   // no warp needs the keys any more
  write_sums(memory.keys, place.row, key_column, solved_keys, as_is);
  GRAFT_UNROLL
  for (int slice = 0; slice < Shape::kSize / Shape::kSlice; ++slice) {
    write_sums(memory.left, place.row, column, outputs[slice], as_is);
    store_sums<Shape>(arguments.doutput, problem, place, slice * Shape::kSlice + column, outputs[slice]);
    block_barrier();
    Sums through_scores[Shape::kSliceParts];
    set_zero(through_scores);
    add_product<Shape::kChunk, true, true>(through_scores, memory.scores, place.row, 0, memory.left, column, 0);
    write_sums(memory.right, place.row, column, through_scores, [](int, int, float value) { return -value; });
    block_barrier();
    add_to_state<Shape>(state_at<Shape>(arguments.dstates, problem, place.number, place.head), slice * Shape::kSlice, [&](Sums (&sums)[Shape::kSlice / 8], int d) {
      add_product<Shape::kChunk, true, true>(sums, memory.queries, d, 0, memory.left, 0, 0);
      add_product<Shape::kChunk, true, true>(sums, memory.keys, d, 0, memory.right, 0, 0);
    });
    block_barrier();   // no warp needs the slice any more
  }
}

}  // namespace

void launch_outputs(const DeltaAttentionForward& arguments, void* stream) {
  for_delta_shape(arguments.problem, [&](auto shape) {
    using Shape = decltype(shape);
    static_assert(sizeof(OutputMemory<Shape>) <= kLeastSharedBytes, "sm_89 and sm_120 have no more");
    LAUNCH(delta_outputs<Shape>, chunk_blocks(arguments.problem), Shape::kThreads, sizeof(OutputMemory<Shape>), stream, arguments);
  });
}

void launch_outputs(const DeltaAttentionBackward& arguments, void* stream) {
  for_delta_shape(arguments.problem, [&](auto shape) {
    using Shape = decltype(shape);
    LAUNCH(delta_outputs_backward<Shape>, chunk_blocks(arguments.problem), Shape::kThreads, sizeof(OutputMemory<Shape>), stream, arguments);
  });
}

}  // namespace graft::cuda
