// What a chunk leaves for the scan over states (delta_states.cu).
#pragma once
#include "kernels/delta_attention/delta_solve.cuh"

namespace graft::cuda {

// A pack of rows, times factor(t, d).
template <typename Shape, typename Factor>
GRAFT_DEVICE Pack<typename Shape::Element, kWidestPack<typename Shape::Element>> scaled_pack(const typename Shape::Rows& rows, int t, int d, const Factor& factor) {
  using Element = typename Shape::Element;
  constexpr int kPack = kWidestPack<Element>;
  auto pack = rows.elements.template read_pack<kPack>(rows.index(t, d));
  GRAFT_UNROLL
  for (int k = 0; k < kPack; ++k) pack.values[k] = from_float<Element>(to_float(pack.values[k]) * factor(t, d + k));
  return pack;
}
template <typename Shape, typename Factor>
GRAFT_DEVICE void scale_rows(typename Shape::Rows& rows, const Factor& factor) {
  for_packs<Shape::kThreads, typename Shape::Element, Shape::kChunk, Shape::kSize>([&](int t, int d) { rows.elements.write_pack(rows.index(t, d), scaled_pack<Shape>(rows, t, d, factor)); });
}

// f(t, d, pack of K-) from keys as they are, and the decays over the whole chunk. K- also goes to memory.
template <typename Shape, typename Function>
GRAFT_DEVICE void end_keys(const typename Shape::Rows& keys, const DeltaMemory<Shape>& memory, const DeltaProblem& problem, const DeltaPlace& place, const Function& f) {
  using Element = typename Shape::Element;
  constexpr int kDecays = Shape::kChannel ? Shape::kSize : 1;
  for_packs<Shape::kThreads, typename Shape::Element, Shape::kChunk, Shape::kSize>([&](int t, int d) {
    const auto pack = scaled_pack<Shape>(keys, t, d, [&](int row, int channel) { return memory.logs.to_end(row, channel); });
    if (t < place.chunk.count) {
      auto* to = padded_row<Shape::kSize>(static_cast<Element*>(problem.ended_keys), problem.num_value_heads, place.head, place.token(t)) + d;
      store(reinterpret_cast<Pack<Element, kWidestPack<Element>>*>(to), pack);
    }
    f(t, d, pack);
  });
  const int d = thread_in_block();
  if (d < kDecays) store(problem.chunk_decays + (int64_t(place.number) * problem.num_value_heads + place.head) * kDecays + d, memory.logs.from_begin(Shape::kChunk - 1, d));
}

// A slice of what a chunk adds to a state: add(sums, d) of the rows d to d + 16.
template <typename Shape, typename Function>
GRAFT_DEVICE void add_to_state(float* state, int slice, const Function& add) {
  for (int d = thread_in_block() / kWarp * 16; d < Shape::kSize; d += Shape::kWarps * 16) {
    Sums sums[Shape::kSlice / 8];
    set_zero(sums);
    add(sums, d);
    for_pairs(sums, [&](int r, int c, float first, float second) {
      store_pair(state + (d + r) * Shape::kSize + slice + c, first, second);
    });
  }
}

}  // namespace graft::cuda
