// What the kernels of LoRA linear share: how parts of matrices come into shared memory and go back, and what dropout does to them.
#pragma once
#include "kernels/cuda/tile_product.cuh"
#include "kernels/lora_linear/lora_linear.cuh"

namespace graft::cuda {

constexpr size_t kLoraSharedBytes = 99 << 10;   // what sm_89 and sm_120 have

GRAFT_DEVICE int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }
// Of rows of rounded factors A.
GRAFT_DEVICE int64_t a_stride_of(const LoraLayer& layer) { return (layer.inputs + kLoraStep - 1) / kLoraStep * kLoraStep; }

template <typename Element>
GRAFT_DEVICE Pack<Element, 2> pack_of(float first, float second) {
  return {{from_float<Element>(first), from_float<Element>(second)}};
}
template <typename Element>
GRAFT_DEVICE void store_pair(Element* to, float first, float second) {
  store(reinterpret_cast<Pack<Element, 2>*>(to), pack_of<Element>(first, second));
}

// [rows, columns] of a row-major matrix, as much of it as exists behind an element (or more than a tile).
template <typename Element>
struct MatrixPart {
  Element* data;
  int64_t stride;
  int rows, columns;
};

GRAFT_DEVICE int left_of(int64_t count, int64_t first) { return static_cast<int>(lesser(count - first, 1 << 20)); }

template <typename Element>
GRAFT_DEVICE MatrixPart<const Element> part_at(const void* matrix, int64_t rows, int64_t columns, int64_t stride, int64_t row, int64_t column) {
  return {static_cast<const Element*>(matrix) + row * stride + column, stride, left_of(rows, row), left_of(columns, column)};
}

// Do all rows begin and end at multiples of 16 bytes?
template <typename Element, int kColumns>
GRAFT_DEVICE bool in_whole_packs(const MatrixPart<Element>& part) {
  constexpr int kPack = kWidestPack<Element>;
  return reinterpret_cast<uintptr_t>(part.data) % 16 == 0 && part.stride % kPack == 0 && (part.columns % kPack == 0 || part.columns >= kColumns);
}

// f(row, column) on the packs of a tile, every thread always on the same ones.
template <int kThreads, typename Element, int kRows, int kColumns, typename Function>
GRAFT_DEVICE void for_packs(const Function& f) {
  constexpr int kPack = kWidestPack<Element>, kPacks = kColumns / kPack;
  for (int i = thread_in_block() % kThreads; i < kRows * kPacks; i += kThreads) f(i / kPacks, i % kPacks * kPack);
}

// Zeros around what exists. The caller commits.
template <int kThreads, typename Element, int kRows, int kColumns>
GRAFT_DEVICE void copy_part(Tile<Element, kRows, kColumns>& to, const MatrixPart<const Element>& from) {
  using Of = Tile<Element, kRows, kColumns>;
  constexpr int kPack = kWidestPack<Element>;
  const bool whole = in_whole_packs<const Element, kColumns>(from);
  for_packs<kThreads, Element, kRows, kColumns>([&](int row, int column) {
    const Element* source = from.data + row * from.stride + column;
    if (whole) {
      const bool valid = row < from.rows && column < from.columns;
      copy_async<kPack>(to.elements, Of::index(row, column), valid ? source : from.data, valid);
      return;
    }
    for (int i = 0; i < kPack; ++i) {
      to.elements.write(Of::index(row, column + i), row < from.rows && column + i < from.columns ? load(source + i) : from_float<Element>(0));
    }
  });
}

// A warp's 16 rows of a tile, from `row` on, to the same rows of a matrix.
template <typename Element, int kRows, int kColumns>
GRAFT_DEVICE void store_rows_of_warp(const Tile<Element, kRows, kColumns>& from, int first_row, const MatrixPart<Element>& to) {
  using Of = Tile<Element, kRows, kColumns>;
  constexpr int kPack = kWidestPack<Element>;
  const bool whole = in_whole_packs<Element, kColumns>(to);
  for_packs<kWarp, Element, 16, kColumns>([&](int within, int column) {
    const int row = first_row + within;
    if (row >= to.rows) return;
    Element* destination = to.data + row * to.stride + column;
    if (whole) {
      if (column < to.columns) store(reinterpret_cast<Pack<Element, kPack>*>(destination), from.elements.template read_pack<kPack>(Of::index(row, column)));
      return;
    }
    for (int i = 0; i < kPack && column + i < to.columns; ++i) store(destination + i, from.elements.read(Of::index(row, column + i)));
  });
}

// SplitMix64 over the counters, as in lora_linear.cpp.
GRAFT_DEVICE float dropout_factor(const LoraMask& mask, int64_t row_key, int64_t column) {
  uint64_t bits = mask.key + 0x9e3779b97f4a7c15U * (static_cast<uint64_t>(row_key) * 0xd1342543de82ef95U + static_cast<uint64_t>(column) + 1);
  bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9U;
  bits = (bits ^ bits >> 27) * 0x94d049bb133111ebU;
  bits ^= bits >> 31;
  return bits >> 11 < mask.threshold ? 0.0F : mask.factor;
}

// Which elements of a tile dropout kept, a bit each.
template <typename Element, int kRows, int kColumns>
struct KeptElements {
  static constexpr int kPack = kWidestPack<Element>;
  SharedArray<uint16_t, kRows * kColumns / kPack> packs;
  GRAFT_DEVICE static int index(int row, int column) { return (row * kColumns + column) / kPack; }
  GRAFT_DEVICE bool at(int row, int column) const { return (packs.read(index(row, column)) >> column % kPack & 1) != 0; }
};

// On the elements that this thread has copied, after its wait and before the block's barrier. The tile's first element is (row, column) of p; `kept` may be
// null.
template <int kThreads, typename Element, int kRows, int kColumns>
GRAFT_DEVICE void apply_dropout(Tile<Element, kRows, kColumns>& tile, const LoraLayer& layer, int64_t row, int64_t column,
                                KeptElements<Element, kRows, kColumns>* kept) {
  using Of = Tile<Element, kRows, kColumns>;
  constexpr int kPack = kWidestPack<Element>;
  if (!layer.mask.row_keys_N) return;
  const int rows = left_of(layer.num_rows, row), columns = left_of(layer.inputs, column);
  for_packs<kThreads, Element, kRows, kColumns>([&](int r, int c) {
    if (r >= rows || c >= columns) return;
    const int64_t key = load(layer.mask.row_keys_N + row + r);
    auto pack = tile.elements.template read_pack<kPack>(Of::index(r, c));
    unsigned bits = 0;
    for (int i = 0; i < kPack; ++i) {
      const float factor = dropout_factor(layer.mask, key, column + c + i);
      pack.values[i] = from_float<Element>(to_float(pack.values[i]) * factor);
      bits |= static_cast<unsigned>(factor != 0) << i;
    }
    tile.elements.template write_pack<kPack>(Of::index(r, c), pack);
    if (kept) kept->packs.write(kept->index(r, c), static_cast<uint16_t>(bits));
  });
}

// outputs[row .. row + 16] += added(low factors^T, row, column) for a warp's rows, rounded once. kTransposed: factors are [ranks, columns].
template <bool kTransposed, typename Element, int kRows, int kColumns, int kWidth, int kFactorRows, int kFactorColumns, typename Function>
GRAFT_DEVICE void add_low_rank(Tile<Element, kRows, kColumns>& outputs, int row, const Tile<Element, kRows, kWidth>& low,
                               const Tile<Element, kFactorRows, kFactorColumns>& factors, const Function& added) {
  using Of = Tile<Element, kRows, kColumns>;
  constexpr int kAtOnce = sizeof(Element) == 4 ? 32 : 64;   // columns whose sums are in registers
  for (int column = 0; column < kColumns; column += kAtOnce) {
    Sums sums[kAtOnce / 8];
    set_zero(sums);
    add_product<kWidth, false, kTransposed>(sums, low, row, 0, factors, column, 0);
    for_pairs(sums, [&](int r, int c, float first, float second) {
      const int at = Of::index(row + r, column + c);
      const auto before = outputs.elements.template read_pack<2>(at);
      first = to_float(before.values[0]) + added(first, row + r, column + c);
      second = to_float(before.values[1]) + added(second, row + r, column + c + 1);
      outputs.elements.template write_pack<2>(at, pack_of<Element>(first, second));
    });
  }
}

// f(element, width), which says whether there is such a kernel, for a layer's type and a window's width.
template <int kWidth>
struct LoraWidth {
  static constexpr int kValue = kWidth;
};
template <int... kWidths, typename Function>
bool for_lora_kernel(const LoraLayer& layer, const LoraWindow& window, const Function& function) {
  const auto typed = [&](auto element) { return ((window.width == kWidths && function(element, LoraWidth<kWidths>())) || ...); };
  switch (layer.type) {
    case RowType::kFloat32: return typed(float());
    case RowType::kBfloat16: return typed(Bfloat16());
    default: return typed(Float16());
  }
}

}  // namespace graft::cuda
