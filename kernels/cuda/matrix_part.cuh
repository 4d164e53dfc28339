// Parts of row-major matrices in global memory: as much of them as exists comes into tiles and goes back, in packs of 16 bytes where rows are made of such.
#pragma once
#include "kernels/cuda/tile.cuh"

namespace graft::cuda {

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

GRAFT_DEVICE int left_of(int64_t count, int64_t first) { return static_cast<int>(lesser<int64_t>(count - first, 1 << 20)); }

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

// Row r of `to` from the element source(r) on; zeros where that is null, and behind `columns`. `whole`: every source lies at, and `columns` is, a multiple of
// 16 bytes. The caller commits.
template <int kThreads, typename Element, int kRows, int kColumns, typename Source>
GRAFT_DEVICE void copy_rows(Tile<Element, kRows, kColumns>& to, int columns, bool whole, const Source& source) {
  using Of = Tile<Element, kRows, kColumns>;
  constexpr int kPack = kWidestPack<Element>;
  for_packs<kThreads, Element, kRows, kColumns>([&](int row, int column) {
    const Element* from = source(row);
    if (whole) {
      const bool valid = from && column < columns;
      copy_async<kPack>(to.elements, Of::index(row, column), valid ? from + column : from, valid);
      return;
    }
    for (int i = 0; i < kPack; ++i) {
      to.elements.write(Of::index(row, column + i), from && column + i < columns ? load(from + column + i) : from_float<Element>(0));
    }
  });
}

// Zeros around what exists.
template <int kThreads, typename Element, int kRows, int kColumns>
GRAFT_DEVICE void copy_part(Tile<Element, kRows, kColumns>& to, const MatrixPart<const Element>& from) {
  const bool whole = in_whole_packs<const Element, kColumns>(from);
  copy_rows<kThreads>(to, from.columns, whole, [&](int row) { return row < from.rows ? from.data + row * from.stride : nullptr; });
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

}  // namespace graft::cuda
