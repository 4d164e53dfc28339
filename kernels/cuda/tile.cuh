// Matrices in shared memory, and their parts as operands of matrix instructions, for every element type alike. float32 is multiplied as sums of three
// bfloat16 (8 + 8 + 8 bits of significand, the six products that matter), which is as exact as float32 products are.
#pragma once
#include "kernels/cuda/matrix.cuh"

namespace graft::cuda {

constexpr size_t kLeastSharedBytes = 99 << 10;   // of a block on sm_89 and sm_120; others have more

// Row-major. Rows are padded: the eight rows of a matrix that ldmatrix loads lie in different banks when a row is an odd number of 16 bytes.
template <typename Element, int kRowCount, int kColumnCount>
struct Tile {
  static constexpr int kRows = kRowCount, kColumns = kColumnCount;
  static constexpr int kStride = sizeof(Element) == 2 ? (kColumns / 8 | 1) * 8 : kColumns + 8;
  static_assert(kColumns % 8 == 0, "rows of whole 16 bytes");
  SharedArray<Element, kRows * kStride> elements;
  GRAFT_DEVICE static int index(int row, int column) { return row * kStride + column; }
  GRAFT_DEVICE float at(int row, int column) const { return to_float(elements.read(index(row, column))); }
};

template <typename Element, int kCount>
struct Operand {
  Registers<kCount> values;
};
template <int kCount>
struct Operand<float, kCount> {
  Registers<kCount> high, middle, low;
};
// a[16 rows, 16] and b[16, 8 columns] of sums[16, 8] += a b.
template <typename Element>
using OperandA = Operand<Element, 4>;
template <typename Element>
using OperandB = Operand<Element, 2>;

template <typename Element, int kCount>
GRAFT_DEVICE void set_pair(Operand<Element, kCount>& operand, int which, float first, float second) {
  operand.values.values[which] = pair_of<Element>(first, second);
}
template <int kCount>
GRAFT_DEVICE void set_pair(Operand<float, kCount>& operand, int which, float first, float second) {
  const uint32_t high = bfloat16_pair(first, second);
  first -= float_of(high << 16);
  second -= float_of(high & 0xffff0000U);
  const uint32_t middle = bfloat16_pair(first, second);
  operand.high.values[which] = high;
  operand.middle.values[which] = middle;
  operand.low.values[which] = bfloat16_pair(first - float_of(middle << 16), second - float_of(middle & 0xffff0000U));
}

template <typename Element>
GRAFT_DEVICE void multiply_add(Sums& sums, const OperandA<Element>& a, const OperandB<Element>& b) {
  if constexpr (std::is_same<Element, float>::value) {
    multiply_add<Bfloat16>(sums, a.low, b.high);
    multiply_add<Bfloat16>(sums, a.middle, b.middle);
    multiply_add<Bfloat16>(sums, a.high, b.low);
    multiply_add<Bfloat16>(sums, a.middle, b.high);
    multiply_add<Bfloat16>(sums, a.high, b.middle);
    multiply_add<Bfloat16>(sums, a.high, b.high);
  } else {
    multiply_add<Element>(sums, a.values, b.values);
  }
}

// Where this lane's part of an operand or of sums lies: group g = lane / 4, pair t = lane % 4 (matrix.cuh).
GRAFT_DEVICE int lane_group() { return thread_in_block() % kWarp / 4; }
GRAFT_DEVICE int lane_pair() { return thread_in_block() % 4 * 2; }
// Over the four lanes that hold a row of sums.
GRAFT_DEVICE float row_sum(float value) {
  for (int mask = 1; mask <= 2; mask *= 2) value += shuffle_xor(value, mask);
  return value;
}

// a = tile[row .. row + 16, column .. column + 16], or with kTransposed that of the transposed tile: a(i, k) = tile(column + k, row + i).
template <bool kTransposed = false, typename Element, int kRows, int kColumns>
GRAFT_DEVICE OperandA<Element> load_a(const Tile<Element, kRows, kColumns>& tile, int row, int column) {
  using Of = Tile<Element, kRows, kColumns>;
  OperandA<Element> a;
  if constexpr (sizeof(Element) == 2) {
    const int lane = thread_in_block() % kWarp, within = lane % 8, second = lane / 8 % 2 * 8, third = lane / 16 * 8;
    load_matrices<kTransposed>(a.values, tile.elements, kTransposed ? Of::index(column + within + third, row + second) : Of::index(row + within + second, column + third));
  } else {
    GRAFT_UNROLL
    for (int which = 0; which < 4; ++which) {
      const int i = row + lane_group() + which % 2 * 8, k = column + lane_pair() + which / 2 * 8;
      set_pair(a, which, kTransposed ? tile.at(k, i) : tile.at(i, k), kTransposed ? tile.at(k + 1, i) : tile.at(i, k + 1));
    }
  }
  return a;
}

// Two operands side by side, b[16, 16]: b(k, j) = tile(row + j, column + k), that is rows of the tile are columns of b; with kTransposed
// b(k, j) = tile(column + k, row + j).
template <bool kTransposed = false, typename Element, int kRows, int kColumns>
GRAFT_DEVICE void load_b(OperandB<Element> (&b)[2], const Tile<Element, kRows, kColumns>& tile, int row, int column) {
  using Of = Tile<Element, kRows, kColumns>;
  if constexpr (sizeof(Element) == 2) {
    const int lane = thread_in_block() % kWarp, within = lane % 8, second = lane / 8 % 2 * 8, third = lane / 16 * 8;
    Registers<4> both;
    load_matrices<kTransposed>(both, tile.elements, kTransposed ? Of::index(column + within + second, row + third) : Of::index(row + within + third, column + second));
    GRAFT_UNROLL
    for (int which = 0; which < 4; ++which) b[which / 2].values.values[which % 2] = both.values[which];
  } else {
    GRAFT_UNROLL
    for (int which = 0; which < 4; ++which) {
      const int j = row + lane_group() + which / 2 * 8, k = column + lane_pair() + which % 2 * 8;
      set_pair(b[which / 2], which % 2, kTransposed ? tile.at(k, j) : tile.at(j, k), kTransposed ? tile.at(k + 1, j) : tile.at(j, k + 1));
    }
  }
}

// Sums[16, 16] as the operand of the next product, without a way through memory.
template <typename Element>
GRAFT_DEVICE OperandA<Element> as_a(const Sums& left, const Sums& right) {
  OperandA<Element> a;
  set_pair(a, 0, left.values[0], left.values[1]);
  set_pair(a, 1, left.values[2], left.values[3]);
  set_pair(a, 2, right.values[0], right.values[1]);
  set_pair(a, 3, right.values[2], right.values[3]);
  return a;
}

GRAFT_DEVICE void set_zero(Sums& sums) {
  GRAFT_UNROLL
  for (int i = 0; i < 4; ++i) sums.values[i] = 0;
}

}  // namespace graft::cuda
