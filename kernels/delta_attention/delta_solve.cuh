// The part of a chunk that is the same for every column of values: P, A and T (delta_chunk.cuh).
#pragma once
#include "kernels/delta_attention/delta_chunk.cuh"

namespace graft::cuda {

// scores(t, s) <- sum of left_t right_s e^(G_t - G_s) for s <= t, or with kStrict s < t, times factor(t), else 0. With a decay a head, a matrix product.
template <typename Shape, bool kStrict, typename To, typename Factor>
GRAFT_DEVICE void decayed_scores(Tile<To, Shape::kChunk, Shape::kChunk>& scores, const typename Shape::Rows& left, const typename Shape::Rows& right,
                                 const DeltaLogs<Shape>& logs, const DeltaPlace& place, const Factor& factor) {
  static_assert(!Shape::kChannel, "decays of channels stand within the sum");
  const int column = place.column(Shape::kChunk);
  Sums sums[Shape::kChunkParts];
  set_zero(sums);
  add_product<Shape::kSize, false, false>(sums, left, place.row, 0, right, column, 0);
  write_sums(scores, place.row, column, sums, [&](int t, int s, float value) {
    const bool before = kStrict ? s < t : s <= t;
    return before ? value * logs.between(t, s, 0) * factor(t) : 0.0F;
  });
}

// Both, with a decay a channel. Every pair of tokens has its own exponentials: factors of each token alone would overflow.
template <typename Shape, bool kScores, typename Scores>
GRAFT_DEVICE void channel_scores(Tile<float, Shape::kChunk, Shape::kChunk>& products, Scores* scores, const typename Shape::Rows& queries,
                                 const typename Shape::Rows& keys, const DeltaMemory<Shape>& memory) {
  using Element = typename Shape::Element;
  constexpr int kChunk = Shape::kChunk;
  for (int i = thread_in_block(); i < kChunk * kChunk; i += Shape::kThreads) {
    const int t = i / kChunk, s = i % kChunk;
    float of_keys = 0, of_queries = 0;
    for (int d = 0; s <= t && d < Shape::kSize; d += 4) {
      const auto row_logs = memory.logs.sums.template read_pack<4>(memory.logs.index(t, d));
      const auto column_logs = memory.logs.sums.template read_pack<4>(memory.logs.index(s, d));
      const auto row_keys = keys.elements.template read_pack<4>(keys.index(t, d)), column_keys = keys.elements.template read_pack<4>(keys.index(s, d));
      Pack<Element, 4> row_queries;
      if (kScores) row_queries = queries.elements.template read_pack<4>(queries.index(t, d));
      GRAFT_UNROLL
      for (int k = 0; k < 4; ++k) {
        const float decayed = to_float(column_keys.values[k]) * power_of_two(row_logs.values[k] - column_logs.values[k]);
        of_keys += to_float(row_keys.values[k]) * decayed;
        if (kScores) of_queries += to_float(row_queries.values[k]) * decayed;
      }
    }
    products.elements.write(products.index(t, s), s < t ? of_keys * memory.betas.read(t) : 0.0F);
    if constexpr (kScores) scores->elements.write(scores->index(t, s), from_float<Element>(of_queries));
  }
}

// square <- (I + square)^-1 of a strictly lower triangular one. First of blocks of 16 on the diagonal, by substitution; then twice as large ones from those:
// the block below the diagonal becomes -T22 A21 T11. Begins and ends with a barrier.
template <typename Shape>
GRAFT_DEVICE void invert_triangle(Tile<float, Shape::kChunk, Shape::kChunk>& square) {
  constexpr int kChunk = Shape::kChunk, kBlock = 16;
  const int thread = thread_in_block();
  block_barrier();
  float column[kBlock];
  const int begin = thread / kBlock * kBlock, own = thread % kBlock;
  if (thread < kChunk) {
    GRAFT_UNROLL
    for (int t = 0; t < kBlock; ++t) {
      column[t] = t == own ? 1.0F : 0.0F;
      GRAFT_UNROLL
      for (int s = 0; s < t; ++s) column[t] -= square.at(begin + t, begin + s) * column[s];
    }
  }
  block_barrier();
  if (thread < kChunk) {
    GRAFT_UNROLL
    for (int t = 0; t < kBlock; ++t) square.elements.write(square.index(begin + t, thread), column[t]);
  }
  GRAFT_UNROLL
  for (int size = kBlock; size < kChunk; size *= 2) {
    constexpr int kMost = kChunk * kChunk / 4 / Shape::kThreads;   // elements of a thread, at the last step
    float sums[kMost];
    GRAFT_UNROLL
    for (int step = 0; step < 2; ++step) {                         // A21 T11, then -T22 times that
      block_barrier();
      GRAFT_UNROLL
      for (int i = 0; i < kMost; ++i) {
        const int index = thread + i * Shape::kThreads, c = index % size, r = index / size % size, corner = index / (size * size) * 2 * size;
        sums[i] = 0;
        if (index >= kChunk / 2 * size) continue;
        const int row = corner + size + r, inner = corner + step * size;
        for (int s = 0; s < size; ++s) sums[i] += (step == 0 ? 1.0F : -1.0F) * square.at(row, inner + s) * square.at(inner + s, corner + c);
      }
      block_barrier();
      GRAFT_UNROLL
      for (int i = 0; i < kMost; ++i) {
        const int index = thread + i * Shape::kThreads, c = index % size, r = index / size % size, corner = index / (size * size) * 2 * size;
        if (index < kChunk / 2 * size) square.elements.write(square.index(corner + size + r, corner + c), sums[i]);
      }
    }
  }
  block_barrier();
}

// T, and with kScores P, from normalised queries and keys in shared memory, which may change at once: all threads have read them.
// T as an operand needs a barrier more.
template <typename Shape, bool kScores>
GRAFT_DEVICE void solve_chunk(DeltaMemory<Shape>& memory, typename Shape::Square* scores, const typename Shape::Rows* queries, const typename Shape::Rows& keys,
                              const DeltaPlace& place) {
  auto& inverse = memory.inverse;
  if constexpr (Shape::kChannel) {
    channel_scores<Shape, kScores>(inverse.exact, scores, kScores ? *queries : keys, keys, memory);
  } else {
    decayed_scores<Shape, true>(inverse.exact, keys, keys, memory.logs, place, [&](int t) { return memory.betas.read(t); });
    if constexpr (kScores) decayed_scores<Shape, false>(*scores, *queries, keys, memory.logs, place, [](int) { return 1.0F; });
  }
  invert_triangle<Shape>(inverse.exact);
  if constexpr (!Shape::kFloat) {
    for (int i = thread_in_block(); i < Shape::kChunk * Shape::kChunk; i += Shape::kThreads) {
      const int t = i / Shape::kChunk, s = i % Shape::kChunk;
      inverse.rounded.elements.write(inverse.rounded.index(t, s), from_float<typename Shape::Element>(inverse.exact.at(t, s)));
    }
  }
}

}  // namespace graft::cuda
