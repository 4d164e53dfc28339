// Products of parts of tiles, 16 rows a warp, and what a lane holds of them.
#pragma once
#include "kernels/cuda/tile.cuh"

namespace graft::cuda {

// sums[16, 8 * kParts] += a[16, kInner] b[kInner, 8 * kParts], with a(i, k) = left(row + i, left_inner + k), or left(left_inner + k, row + i) where transposed,
// and b(k, j) = right(column + j, right_inner + k), or right(right_inner + k, column + j) where transposed.
template <int kInner, bool kTransposedLeft, bool kTransposedRight, int kParts, typename Element, int kLeftRows, int kLeftColumns, int kRightRows,
          int kRightColumns>
GRAFT_DEVICE void add_product(Sums (&sums)[kParts], const Tile<Element, kLeftRows, kLeftColumns>& left, int row, int left_inner,
                              const Tile<Element, kRightRows, kRightColumns>& right, int column, int right_inner) {
  static_assert(kInner % 16 == 0 && kParts % 2 == 0, "whole instructions");
  for (int k = 0; k < kInner; k += 16) {
    const auto a = load_a<kTransposedLeft>(left, row, left_inner + k);
    GRAFT_UNROLL
    for (int part = 0; part < kParts; part += 2) {
      OperandB<Element> b[2];
      load_b<kTransposedRight>(b, right, column + part * 8, right_inner + k);
      multiply_add<Element>(sums[part], a, b[0]);
      multiply_add<Element>(sums[part + 1], a, b[1]);
    }
  }
}

// The same for kGroups times 16 rows, which share what is loaded of `right`.
template <int kInner, bool kTransposedLeft, bool kTransposedRight, int kGroups, int kParts, typename Element, int kLeftRows, int kLeftColumns, int kRightRows,
          int kRightColumns>
GRAFT_DEVICE void add_product(Sums (&sums)[kGroups][kParts], const Tile<Element, kLeftRows, kLeftColumns>& left, int row, int left_inner,
                              const Tile<Element, kRightRows, kRightColumns>& right, int column, int right_inner) {
  static_assert(kInner % 16 == 0 && kParts % 2 == 0, "whole instructions");
  for (int k = 0; k < kInner; k += 16) {
    OperandA<Element> a[kGroups];
    GRAFT_UNROLL
    for (int group = 0; group < kGroups; ++group) a[group] = load_a<kTransposedLeft>(left, row + group * 16, left_inner + k);
    GRAFT_UNROLL
    for (int part = 0; part < kParts; part += 2) {
      OperandB<Element> b[2];
      load_b<kTransposedRight>(b, right, column + part * 8, right_inner + k);
      GRAFT_UNROLL
      for (int group = 0; group < kGroups; ++group) {
        multiply_add<Element>(sums[group][part], a[group], b[0]);
        multiply_add<Element>(sums[group][part + 1], a[group], b[1]);
      }
    }
  }
}

template <int kParts>
GRAFT_DEVICE void set_zero(Sums (&sums)[kParts]) {
  GRAFT_UNROLL
  for (int part = 0; part < kParts; ++part) set_zero(sums[part]);
}
template <int kGroups, int kParts>
GRAFT_DEVICE void set_zero(Sums (&sums)[kGroups][kParts]) {
  GRAFT_UNROLL
  for (int group = 0; group < kGroups; ++group) set_zero(sums[group]);
}

// f(row, column, first, second) on the pairs of neighbours that this lane holds of sums[16, 8 * kParts].
template <int kParts, typename Function>
GRAFT_DEVICE void for_pairs(const Sums (&sums)[kParts], const Function& f) {
  GRAFT_UNROLL
  for (int part = 0; part < kParts; ++part) {
    GRAFT_UNROLL
    for (int half = 0; half < 2; ++half) f(lane_group() + half * 8, part * 8 + lane_pair(), sums[part].values[2 * half], sums[part].values[2 * half + 1]);
  }
}

}  // namespace graft::cuda
