// Gradients within chunks: delta_slices.cuh goes through the values; what it leaves in registers goes on to queries, keys and gates. G comes with q as e^G q and
// with k as e^G k or e^-G k, so that its gradient is q dq + k (dk of the former - dk of the latter).
#include "kernels/delta_attention/delta_slices.cuh"

namespace graft::cuda {
namespace {

// f(which of this lane's two rows, t, d, number of a Sums, place in it) on what a lane holds of [16, half of the key's channels].
template <typename Shape, typename Function>
GRAFT_DEVICE void for_channels(const DeltaPlace& place, const Function& f) {
  GRAFT_UNROLL
  for (int part = 0; part < Shape::kSizeParts; ++part) {
    GRAFT_UNROLL
    for (int i = 0; i < 4; ++i) f(i / 2, place.row + lane_group() + i / 2 * 8, place.column(Shape::kSize) + part * 8 + lane_pair() + i % 2, part, i);
  }
}

// What the gradients of P and A, in `scores` and `squares`, give to queries and to keys as rows of A, and to keys as columns of both. With a decay a channel,
// every pair of tokens has its own exponentials.
template <typename Shape>
GRAFT_DEVICE void add_channel_rows(GradientMemory<Shape>& memory, Sums (&queries)[Shape::kSizeParts], Sums (&rows)[Shape::kSizeParts], const DeltaPlace& place) {
  const auto& squares = memory.inverse.operand();
  for_channels<Shape>(place, [&](int, int t, int d, int part, int i) {
    float of_query = 0, of_row = 0;
    for (int s = 0; s <= t; ++s) {
      const float decayed = memory.logs.between(t, s, d) * memory.second.at(s, d);
      of_query += memory.scores.at(t, s) * decayed;
      of_row += squares.at(t, s) * decayed;
    }
    queries[part].values[i] += of_query;
    rows[part].values[i] = of_row;
  });
}
template <typename Shape>
GRAFT_DEVICE void add_channel_columns(GradientMemory<Shape>& memory, Sums (&columns)[Shape::kSizeParts], const DeltaPlace& place) {
  const auto& squares = memory.inverse.operand();
  for_channels<Shape>(place, [&](int, int t, int d, int part, int i) {
    float sum = 0;
    for (int s = t; s < Shape::kChunk; ++s) {
      const float of_key = memory.betas.read(s) * squares.at(s, t) * memory.second.at(s, d);
      sum += memory.logs.between(s, t, d) * (memory.scores.at(s, t) * memory.first.at(s, d) + of_key);
    }
    columns[part].values[i] += sum;
  });
}
// With a decay a head, the tiles hold the decays already. Leaves beta in `squares`.
template <typename Shape>
GRAFT_DEVICE void add_head_columns(GradientMemory<Shape>& memory, Sums (&columns)[Shape::kSizeParts], const DeltaPlace& place) {
  using Element = typename Shape::Element;
  constexpr int kPack = kWidestPack<Element>, kChunk = Shape::kChunk;
  auto& squares = memory.inverse.operand();
  const int column = place.column(Shape::kSize);
  block_barrier();   // no warp needs rows without beta any more
  for_packs<Shape::kThreads, typename Shape::Element, kChunk, kChunk>([&](int t, int s) {
    auto pack = squares.elements.template read_pack<kPack>(squares.index(t, s));
    GRAFT_UNROLL
    for (int k = 0; k < kPack; ++k) pack.values[k] = from_float<Element>(to_float(pack.values[k]) * memory.betas.read(t));
    squares.elements.write_pack(squares.index(t, s), pack);
  });
  block_barrier();
  add_product<kChunk, true, true>(columns, memory.scores, place.row, 0, memory.first, column, 0);
  add_product<kChunk, true, true>(columns, squares, place.row, 0, memory.second, column, 0);
}

// da and db of the chunk's tokens from sums in shared memory.
template <typename Shape>
GRAFT_DEVICE void store_gate_gradients(GradientMemory<Shape>& memory, const DeltaAttentionBackward& arguments, const DeltaPlace& place) {
  using Element = typename Shape::Element;
  constexpr int kChunk = Shape::kChunk;
  const auto& problem = arguments.problem;
  const int thread = thread_in_block();
  const float rate = load(problem.decay_rate_H + place.head);
  const auto store_da = [&](int t, int d, float dlog) {
    const int width = Shape::kChannel ? problem.key_size : 1;
    const int64_t index = (place.token(t) * problem.num_value_heads + place.head) * width + d;
    store(static_cast<Element*>(arguments.da_NA) + index, from_float<Element>(-rate * sigmoid(raised_input<Shape>(problem, place, t, d)) * dlog));
  };
  if constexpr (Shape::kChannel) {
    if (thread < problem.key_size) {
      float later = memory.state_products.read(thread);
      for (int tile = 0; tile < kChunk / 16; ++tile) later += memory.end_columns.read(tile * Shape::kSize + thread);
      for (int t = kChunk - 1; t >= 0; --t) {
        later += memory.logs.at(t, thread);
        if (t < place.chunk.count) store_da(t, thread, later);
      }
    }
  } else if (thread < place.chunk.count) {
    float later = 0;
    for (int d = 0; d < Shape::kSize; ++d) later += memory.state_products.read(d);
    for (int t = 0; t < 2 * kChunk; ++t) later += memory.end_sums.read(t) + (t % kChunk >= thread ? memory.log_sums.read(t) : 0.0F);
    store_da(thread, 0, later);
  }
  if (thread < place.chunk.count) {
    const float beta = memory.betas.read(thread), dbeta = memory.beta_sums.read(thread) + memory.beta_sums.read(kChunk + thread);
    store(static_cast<Element*>(arguments.db_NH) + place.token(thread) * problem.num_value_heads + place.head, from_float<Element>(dbeta * beta * (1 - beta)));
  }
}

template <typename Shape>
GRAFT_DEVICE void copy_queries_and_keys(GradientMemory<Shape>& memory, const DeltaProblem& problem, const DeltaPlace& place) {
  const int key_head = key_head_of(problem, place.head);
  copy_tokens<Shape>(memory.first, problem.queries, problem.num_key_heads, key_head, place.chunk);
  copy_tokens<Shape>(memory.second, problem.keys, problem.num_key_heads, key_head, place.chunk);
  copy_commit();
}

template <typename Shape>
GRAFT_KERNEL(Shape::kThreads, 1) delta_gradients(const DeltaAttentionBackward arguments) {
  const auto& problem = arguments.problem;
  auto& memory = GRAFT_SHARED(GradientMemory<Shape>);
  const DeltaPlace place(problem);
  copy_queries_and_keys<Shape>(memory, problem, place);
  read_gates<Shape>(memory, problem, place);
  multiply_states<Shape>(memory, arguments, place);
  copy_wait<0>();
  block_barrier();
  solve_chunk<Shape, true>(memory, &memory.scores, &memory.first, memory.second, place);
  for_packs<Shape::kThreads, typename Shape::Element, Shape::kChunk, Shape::kSize>([&](int t, int d) {
    const auto begun = scaled_pack<Shape>(memory.second, t, d, [&](int row, int channel) { return memory.logs.from_begin(row, channel); });
    const auto of_end = scaled_pack<Shape>(memory.second, t, d, [&](int row, int channel) { return memory.logs.to_end(row, channel); });
    memory.first.elements.write_pack(memory.first.index(t, d), begun);
    memory.second.elements.write_pack(memory.second.index(t, d), of_end);
  });
  GradientSums<Shape> sums;
  set_zero(sums.queries);
  set_zero(sums.solved);
  set_zero(sums.ended);
  set_zero(sums.scores);
  set_zero(sums.squares);
  GRAFT_UNROLL_BY(1)
  for (int slice = 0; slice < Shape::kSize; slice += Shape::kSlice) add_slice<Shape>(memory, sums, arguments, place, slice);

  block_barrier();   // no warp needs K+, K-, P and T any more
  copy_queries_and_keys<Shape>(memory, problem, place);
  const auto decay = [&](int t, int s) { return Shape::kChannel ? 1.0F : memory.logs.between(t, s, 0); };
  const int chunk_column = place.column(Shape::kChunk);
  write_sums(memory.scores, place.row, chunk_column, sums.scores, [&](int t, int s, float value) { return s <= t ? value * decay(t, s) : 0.0F; });
  write_sums(memory.inverse.operand(), place.row, chunk_column, sums.squares, [&](int t, int s, float value) { return s < t ? -value * decay(t, s) : 0.0F; });
  copy_wait<0>();
  block_barrier();

  float end_sums[2] = {0, 0}, log_sums[2] = {0, 0};
  const int key_column = place.column(Shape::kSize);
  auto &queries = sums.queries, &begun = sums.solved, &ended = sums.ended;
  Sums rows[Shape::kSizeParts];
  // Queries: their gradient, then its product with them.
  const auto finish_queries = [&] {
    store_sums<Shape>(arguments.dqueries, problem, place, key_column, queries);
    for_channels<Shape>(place, [&](int half, int t, int d, int part, int i) { log_sums[half] += queries[part].values[i] *= memory.first.at(t, d); });
  };
  // Keys as they come with e^G.
  const auto finish_rows = [&] {
    for_channels<Shape>(place, [&](int half, int t, int d, int part, int i) {
      const float of_row = rows[part].values[i];
      sums.betas[half] += memory.second.at(t, d) * of_row;
      begun[part].values[i] = memory.betas.read(t) * (of_row - memory.logs.from_begin(t, d) * begun[part].values[i]);
    });
  };
  for_channels<Shape>(place, [&](int, int t, int d, int part, int i) { queries[part].values[i] *= memory.logs.from_begin(t, d); });
  if constexpr (Shape::kChannel) {
    add_channel_rows<Shape>(memory, queries, rows, place);
    finish_queries();
    finish_rows();
  } else {
    add_product<Shape::kChunk, false, true>(queries, memory.scores, place.row, 0, memory.second, key_column, 0);
    finish_queries();
    set_zero(rows);
    add_product<Shape::kChunk, false, true>(rows, memory.inverse.operand(), place.row, 0, memory.second, key_column, 0);
    finish_rows();
  }
  // Keys as they come with e^-G.
  for_channels<Shape>(place, [&](int half, int t, int d, int part, int i) {
    ended[part].values[i] *= memory.logs.to_end(t, d);
    rows[part].values[i] = memory.second.at(t, d) * ended[part].values[i];
    end_sums[half] += rows[part].values[i];
  });
  if constexpr (Shape::kChannel) {
    GRAFT_UNROLL
    for (int part = 0; part < Shape::kSizeParts; ++part) {
      GRAFT_UNROLL
      for (int i = 0; i < 2; ++i) {
        float sum = rows[part].values[i] + rows[part].values[2 + i];
        for (int mask = 4; mask < kWarp; mask *= 2) sum += shuffle_xor(sum, mask);
        if (lane_group() == 0) memory.end_columns.write(place.row / 16 * Shape::kSize + key_column + part * 8 + lane_pair() + i, sum);
      }
    }
    add_channel_columns<Shape>(memory, ended, place);
    block_barrier();   // from here on logs hold their own gradient
  } else {
    add_head_columns<Shape>(memory, ended, place);
  }
  for_channels<Shape>(place, [&](int half, int t, int d, int part, int i) {
    const float along = memory.second.at(t, d) * (begun[part].values[i] - ended[part].values[i]);
    log_sums[half] += along;
    begun[part].values[i] += ended[part].values[i];
    if (Shape::kChannel) memory.logs.sums.write(memory.logs.index(t, d), queries[part].values[i] + along);
  });
  store_sums<Shape>(arguments.dkeys, problem, place, key_column, begun);
  GRAFT_UNROLL
  for (int half = 0; half < 2; ++half) {
    const float beta = row_sum(sums.betas[half]), log = row_sum(log_sums[half]), end = row_sum(end_sums[half]);
    if (lane_pair() != 0) continue;
    const int at = place.half * Shape::kChunk + place.row + lane_group() + half * 8;
    memory.beta_sums.write(at, beta);
    memory.log_sums.write(at, log);
    memory.end_sums.write(at, end);
  }
  block_barrier();
  store_gate_gradients<Shape>(memory, arguments, place);
}

}  // namespace

void launch_gradients(const DeltaAttentionBackward& arguments, void* stream) {
  for_delta_shape(arguments.problem, [&](auto shape) {
    using Shape = decltype(shape);
    static_assert(sizeof(GradientMemory<Shape>) <= kLeastSharedBytes, "sm_89 and sm_120 have no more");
    LAUNCH(delta_gradients<Shape>, chunk_blocks(arguments.problem), Shape::kThreads, sizeof(GradientMemory<Shape>), stream, arguments);
  });
}

}  // namespace graft::cuda
