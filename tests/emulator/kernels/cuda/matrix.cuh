// kernels/cuda/matrix.cuh on the CPU, with the fragment maps of PTX ISA 8.5, sections 9.7.14.5.8 (mma.m16n8k16) and 9.7.14.5.15 (ldmatrix).
#pragma once
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/shared.cuh"

namespace graft::cuda {

// What no instruction has written is NaN.
template <int kCount>
struct Registers {
  uint32_t values[kCount];
  Registers() {
    for (auto& value : values) value = 0xffffffffU;
  }
};

struct Sums {
  float values[4];
  Sums() {
    for (auto& value : values) value = NAN;
  }
};

template <bool kTransposed, int kCount, typename Element, int kElements>
void load_matrices(Registers<kCount>& fragment, const SharedArray<Element, kElements>& from, int index) {
  static_assert(sizeof(Element) == 2 && (kCount == 1 || kCount == 2 || kCount == 4), "ldmatrix moves 1, 2 or 4 matrices of 8 x 8 elements of 16 bits");
  struct Arguments {
    const uint16_t* row;
    uint32_t result[kCount];
  } mine{nullptr, {}};
  if (thread_in_block() % kWarp < 8 * kCount) {   // further lanes' addresses are not looked at
    mine.row = reinterpret_cast<const uint16_t*>(from.address(index, 8));
    emulator::check_shared(mine.row, 16, 16, emulator::Access::kRead);
  }
  emulator::warp_instruction(kTransposed ? "load_matrices transposed" : "load_matrices", &mine, [](void* const* lanes) {
    for (int lane = 0; lane < kWarp; ++lane) {
      for (int matrix = 0; matrix < kCount; ++matrix) {
        const auto element = [&](int row, int column) { return static_cast<uint32_t>(static_cast<Arguments*>(lanes[8 * matrix + row])->row[column]); };
        const int row = lane / 4, column = 2 * (lane % 4);
        const uint32_t low = kTransposed ? element(column, row) : element(row, column);
        const uint32_t high = kTransposed ? element(column + 1, row) : element(row, column + 1);
        static_cast<Arguments*>(lanes[lane])->result[matrix] = low | high << 16;
      }
    }
  });
  for (int matrix = 0; matrix < kCount; ++matrix) fragment.values[matrix] = mine.result[matrix];
}

// sums[16, 8] += a[16, 16] b[16, 8]: exact products, summed in double and rounded once (hardware keeps a few bits less).
template <typename Element>
void multiply_add(Sums& sums, const Registers<4>& a, const Registers<2>& b) {
  static_assert(sizeof(Element) == 2);
  struct Arguments {
    float* sums;
    const uint32_t *a, *b;
  } mine{sums.values, a.values, b.values};
  emulator::warp_instruction("multiply_add", &mine, [](void* const* lanes) {
    const auto of = [&](int lane) { return static_cast<Arguments*>(lanes[lane]); };
    const auto half = [](uint32_t pair, int which) { return to_float(Element{static_cast<uint16_t>(pair >> (16 * which))}); };
    float matrix_a[16][16], matrix_b[16][8];
    for (int lane = 0; lane < kWarp; ++lane) {
      const int group = lane / 4, in_group = lane % 4;
      for (int i = 0; i < 8; ++i) matrix_a[group + (i / 2 % 2) * 8][in_group * 2 + i % 2 + (i / 4) * 8] = half(of(lane)->a[i / 2], i % 2);
      for (int i = 0; i < 4; ++i) matrix_b[in_group * 2 + i % 2 + (i / 2) * 8][group] = half(of(lane)->b[i / 2], i % 2);
    }
    for (int lane = 0; lane < kWarp; ++lane) {
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + (i / 2) * 8, column = (lane % 4) * 2 + i % 2;
        double sum = of(lane)->sums[i];
        for (int k = 0; k < 16; ++k) sum += static_cast<double>(matrix_a[row][k]) * matrix_b[k][column];
        of(lane)->sums[i] = static_cast<float>(sum);
      }
    }
  });
}

}  // namespace graft::cuda
