// One value head's tokens of one chunk in shared memory. With G the logarithms of decays summed from the chunk's first token (channel by channel), S the state
// that the chunk finds, rows t and s <= t:
//
//   Q+ = Q e^G,  K+ = K e^G,  K- = K e^(G of the last - G);  P_ts = sum of q_t k_s e^(G_t - G_s);  A_ts = beta_t sum of k_t k_s e^(G_t - G_s) for s < t
//   T = (I + A)^-1;  U = T beta (V - K+ S);  O = Q+ S + P U;  the next state is e^(G of the last) S + K-^T U
//
// No exponent is above zero. Tokens behind the chunk's last are zeros with a decay of 1: they change nothing.
#pragma once
#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/matrix_part.cuh"
#include "kernels/cuda/row_values.cuh"
#include "kernels/cuda/tile_product.cuh"
#include "kernels/delta_attention/delta_kernels.cuh"

namespace graft::cuda {

template <typename ElementType, int kHeadSize, bool kChannelDecay>
struct DeltaShape {
  using Element = ElementType;
  static constexpr int kSize = kHeadSize;                                                   // of keys and of values
  static constexpr bool kChannel = kChannelDecay, kFloat = sizeof(Element) == 4;
  static constexpr int kChunk = delta_chunk_tokens(kFloat, kChannel);
  static constexpr int kWarps = kChunk / 8, kThreads = kWarps * kWarp;                      // two warps for 16 tokens, half of the columns each
  static constexpr int kSlice = 32;                                                         // columns of values that are worked on together
  static constexpr int kSizeParts = kSize / 16, kSliceParts = kSlice / 16, kChunkParts = kChunk / 16;   // a warp's Sums of half of such columns
  using Rows = Tile<Element, kChunk, kSize>;
  using Slice = Tile<Element, kChunk, kSlice>;
  using State = Tile<Element, kSize, kSlice>;
  using Square = Tile<Element, kChunk, kChunk>;
};

// Host: f(DeltaShape) for a problem.
template <typename Function>
void for_delta_shape(const DeltaProblem& problem, const Function& f) {
  for_delta_sizes(problem, [&](auto sizes) {
    using Sizes = decltype(sizes);
    problem.channel_decay ? f(DeltaShape<typename Sizes::Type, Sizes::kValue, true>()) : f(DeltaShape<typename Sizes::Type, Sizes::kValue, false>());
  });
}

inline int64_t chunk_blocks(const DeltaProblem& problem) { return int64_t(problem.num_chunks) * problem.num_value_heads; }

// Which chunk and head a block has, and which rows and columns of products a warp.
struct DeltaPlace {
  DeltaChunk chunk;
  int number, head, row, half;

  GRAFT_DEVICE explicit DeltaPlace(const DeltaProblem& problem)
      : chunk(load(problem.chunks + block_in_grid() / problem.num_value_heads)), number(static_cast<int>(block_in_grid() / problem.num_value_heads)),
        head(static_cast<int>(block_in_grid() % problem.num_value_heads)), row(thread_in_block() / kWarp / 2 * 16), half(thread_in_block() / kWarp % 2) {}
  GRAFT_DEVICE int column(int columns) const { return half * (columns / 2); }
  GRAFT_DEVICE int64_t token(int t) const { return int64_t(chunk.first) + t; }
};

// Sums of logarithms to the base 2, a row for each token.
template <typename Shape>
struct DeltaLogs {
  static constexpr int kStride = Shape::kChannel ? Shape::kSize + 4 : 1;
  SharedArray<float, Shape::kChunk * kStride> sums;
  GRAFT_DEVICE static int index(int t, int d) { return t * kStride + (Shape::kChannel ? d : 0); }
  GRAFT_DEVICE float at(int t, int d) const { return sums.read(index(t, d)); }
  GRAFT_DEVICE float from_begin(int t, int d) const { return power_of_two(at(t, d)); }
  GRAFT_DEVICE float to_end(int t, int d) const { return between(Shape::kChunk - 1, t, d); }
  GRAFT_DEVICE float between(int t, int s, int d) const { return power_of_two(at(t, d) - at(s, d)); }
};

// T as an operand; as float32 it is that already.
template <typename Shape, bool kIsFloat = Shape::kFloat>
struct DeltaInverse {
  Tile<float, Shape::kChunk, Shape::kChunk> exact;
  typename Shape::Square rounded;
  GRAFT_DEVICE typename Shape::Square& operand() { return rounded; }
};
template <typename Shape>
struct DeltaInverse<Shape, true> {
  typename Shape::Square exact;
  GRAFT_DEVICE typename Shape::Square& operand() { return exact; }
};

// What every kernel of chunks has in shared memory.
template <typename Shape>
struct DeltaMemory {
  DeltaInverse<Shape> inverse;
  DeltaLogs<Shape> logs;
  SharedArray<float, Shape::kChunk> betas;
};

// Columns of a head's padded rows, zeros behind the chunk's last token. The caller commits.
template <typename Shape, int kColumns>
GRAFT_DEVICE void copy_tokens(Tile<typename Shape::Element, Shape::kChunk, kColumns>& to, const void* rows, int heads, int head, const DeltaChunk& chunk,
                              int column = 0) {
  using Element = typename Shape::Element;
  const auto* from = static_cast<const Element*>(rows);
  for_packs<Shape::kThreads, typename Shape::Element, Shape::kChunk, kColumns>([&](int t, int c) {
    const bool valid = t < chunk.count;
    const Element* row = valid ? padded_row<Shape::kSize>(from, heads, head, chunk.first + t) + column + c : from;
    copy_async<kWidestPack<Element>>(to.elements, to.index(t, c), row, valid);
  });
}

// A chunk's state of one head.
template <typename Shape, typename T>
GRAFT_DEVICE T* state_at(T* states, const DeltaProblem& problem, int64_t chunk, int head) {
  return states + (chunk * problem.num_value_heads + head) * (Shape::kSize * Shape::kSize);
}
// f(row, column) on packs of four of a slice of a state, every thread always on the same ones.
template <typename Shape, typename Function>
GRAFT_DEVICE void for_state_packs(const Function& f) {
  for (int i = thread_in_block(); i < Shape::kSize * Shape::kSlice / 4; i += Shape::kThreads) f(i / (Shape::kSlice / 4), i % (Shape::kSlice / 4) * 4);
}
GRAFT_DEVICE Pack<float, 4> load_four(const float* from) { return load(reinterpret_cast<const Pack<float, 4>*>(from)); }

template <typename Shape>
GRAFT_DEVICE void read_state(typename Shape::State& to, const float* state, int column) {
  using Element = typename Shape::Element;
  for_state_packs<Shape>([&](int d, int c) {
    const auto four = load_four(state + d * Shape::kSize + column + c);
    Pack<Element, 4> rounded;
    GRAFT_UNROLL
    for (int k = 0; k < 4; ++k) rounded.values[k] = from_float<Element>(four.values[k]);
    to.elements.write_pack(to.index(d, c), rounded);
  });
}

// f(row, column, value) of a warp's sums, to a tile from (row, column) on.
template <typename Element, int kRows, int kColumns, int kParts, typename Function>
GRAFT_DEVICE void write_sums(Tile<Element, kRows, kColumns>& to, int row, int column, const Sums (&sums)[kParts], const Function& f) {
  for_pairs(sums, [&](int r, int c, float first, float second) {
    const int t = row + r, s = column + c;
    to.elements.write_pack(to.index(t, s), pack_of<Element>(f(t, s, first), f(t, s + 1, second)));
  });
}
GRAFT_DEVICE float as_is(int, int, float value) { return value; }

// A warp's sums to a head's padded rows; none behind the chunk's last.
template <typename Shape, int kParts>
GRAFT_DEVICE void store_sums(void* rows, const DeltaProblem& problem, const DeltaPlace& place, int column, const Sums (&sums)[kParts]) {
  using Element = typename Shape::Element;
  for_pairs(sums, [&](int r, int c, float first, float second) {
    const int t = place.row + r;
    if (t >= place.chunk.count) return;
    auto* to = padded_row<Shape::kSize>(static_cast<Element*>(rows), problem.num_value_heads, place.head, place.token(t)) + column + c;
    store_pair(to, first, second);
  });
}

// What a and its bias give before the rate.
template <typename Shape>
GRAFT_DEVICE float raised_input(const DeltaProblem& problem, const DeltaPlace& place, int t, int d) {
  using Element = typename Shape::Element;
  const int widths = Shape::kChannel ? problem.key_size : 1, index = place.head * widths + (Shape::kChannel ? d : 0);
  const auto* a = static_cast<const Element*>(problem.a_NA) + place.token(t) * problem.num_value_heads * widths + index;
  return to_float(load(a)) + load(problem.decay_bias_A + index);
}

// betas and sums of logarithms. Ends with a barrier.
template <typename Shape>
GRAFT_DEVICE void read_gates(DeltaMemory<Shape>& memory, const DeltaProblem& problem, const DeltaPlace& place) {
  using Element = typename Shape::Element;
  constexpr int kChunk = Shape::kChunk;
  // What is below 2^-160 is 0 in float32 for whatever state it meets, and sums stay small enough to be subtracted.
  constexpr float kLeast = -160;
  const float rate = load(problem.decay_rate_H + place.head) * kLog2E;
  const int thread = thread_in_block();
  const auto log_of = [&](int t, int d) {
    const float log = -rate * softplus(raised_input<Shape>(problem, place, t, d));
    return log < kLeast ? kLeast : log;
  };
  if (thread < kChunk) {
    const auto* b = static_cast<const Element*>(problem.b_NH) + place.token(thread) * problem.num_value_heads + place.head;
    memory.betas.write(thread, thread < place.chunk.count ? sigmoid(to_float(load(b))) : 0.0F);
  }
  if constexpr (Shape::kChannel) {
    float sum = 0;
    for (int t = 0; thread < Shape::kSize && t < kChunk; ++t) {
      if (t < place.chunk.count && thread < problem.key_size) sum += log_of(t, thread);
      memory.logs.sums.write(memory.logs.index(t, thread), sum);
    }
  } else {
    if (thread < kChunk) memory.logs.sums.write(thread, thread < place.chunk.count ? log_of(thread, 0) : 0.0F);
    block_barrier();
    float sum = 0;
    for (int t = 0; t < kChunk; ++t) sum += t <= thread ? memory.logs.sums.read(t) : 0.0F;
    block_barrier();
    if (thread < kChunk) memory.logs.sums.write(thread, sum);
  }
  block_barrier();
}

}  // namespace graft::cuda
