// Rows of a matrix, moved in packs of 16 bytes where their width allows, and kept in registers where they fit: memory is read once.
#pragma once
#include "kernels/cuda/elements.cuh"

namespace graft::cuda {

// Thread t of a row's kThreads has its packs t, t + kThreads, ...; it keeps at most kKept of them. kKept 0: it reads memory again each time.
template <typename E, int kThreadsOfRow, int kPackSize, int kKeptPacks>
struct RowShape {
  using Element = E;
  using Packed = Pack<E, kPackSize>;
  static constexpr int kThreads = kThreadsOfRow, kPack = kPackSize, kKept = kKeptPacks;
  // A block has one row, or of rows that are a warp's several: a multiprocessor holds no more than 32 blocks.
  static constexpr int kRows = kThreads == kWarp ? 4 : 1, kBlock = kRows * kThreads;
};

// Calls f(slot, pack) for each pack of this thread.
template <typename Shape, typename Function>
GRAFT_DEVICE void for_each_pack(int num_packs, const Function& function) {
  const int first = thread_in_block() % Shape::kThreads;
  if constexpr (Shape::kKept > 0) {
    GRAFT_UNROLL
    for (int slot = 0; slot < Shape::kKept; ++slot) {
      const int pack = first + slot * Shape::kThreads;
      if (pack < num_packs) function(slot, pack);
    }
  } else {
    GRAFT_UNROLL_BY(2)   // by 4, as it would be else, registers run out
    for (int pack = first; pack < num_packs; pack += Shape::kThreads) function(0, pack);
  }
}

// This thread's packs of one row.
template <typename Shape>
struct KeptRow {
  using Packed = typename Shape::Packed;
  const Packed* memory;
  Packed kept[Shape::kKept > 0 ? Shape::kKept : 1];

  // All reads go out before any is used.
  GRAFT_DEVICE void read(const Packed* row, int num_packs) {
    memory = row;
    if constexpr (Shape::kKept > 0) for_each_pack<Shape>(num_packs, [&](int slot, int pack) { kept[slot] = load(row + pack); });
  }
  GRAFT_DEVICE Packed at(int slot, int pack) const {
    if constexpr (Shape::kKept > 0) return kept[slot];
    return load(memory + pack);
  }
};

// The floats that belong to pack number `pack` of kPack elements, in accesses of at most 16 bytes.
template <int kPack>
GRAFT_DEVICE void load_floats(const float* floats, int pack, float (&values)[kPack]) {
  constexpr int kWidth = kPack < 4 ? kPack : 4;
  GRAFT_UNROLL
  for (int first = 0; first < kPack; first += kWidth) {
    const auto part = load(reinterpret_cast<const Pack<float, kWidth>*>(floats + int64_t(pack) * kPack + first));
    GRAFT_UNROLL
    for (int k = 0; k < kWidth; ++k) values[first + k] = part.values[k];
  }
}

}  // namespace graft::cuda
