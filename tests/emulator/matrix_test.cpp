// Matrix instructions and the tiles that feed them, against plain loops: every operand map of every element type, and a wrong one that shows.
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/cuda/tile.cuh"
#include "tests/emulator/buffer.h"

namespace graft::cuda {
namespace {

using emulator::Buffer;

template <typename Element>
class MatrixOf : public testing::Test {};
using Elements = testing::Types<Bfloat16, Float16, float>;
TYPED_TEST_SUITE(MatrixOf, Elements);

template <typename Element, bool kTransposedA, bool kTransposedB>
struct Operands {
  Tile<Element, kTransposedA ? 48 : 32, kTransposedA ? 32 : 48> a;
  Tile<Element, kTransposedB ? 48 : 16, kTransposedB ? 16 : 48> b;
};

// c[32, 16] = op(a)[32, 48] op(b)[48, 16] by two warps; b is stored as [16, 48] unless transposed.
template <typename Element, bool kTransposedA, bool kTransposedB, int kShift>
GRAFT_KERNEL(64) product(const Element* a, const Element* b, float* c) {
  using Memory = Operands<Element, kTransposedA, kTransposedB>;
  auto& memory = GRAFT_SHARED(Memory);
  const auto fill = [](auto& tile, const Element* from) {
    using Of = std::remove_reference_t<decltype(tile)>;
    for (int i = thread_in_block(); i < Of::kRows * Of::kColumns; i += 64) tile.elements.write(Of::index(i / Of::kColumns, i % Of::kColumns), load(from + i));
  };
  fill(memory.a, a);
  fill(memory.b, b);
  block_barrier();
  const int row = thread_in_block() / kWarp * 16;
  Sums sums[2];
  set_zero(sums[0]);
  set_zero(sums[1]);
  for (int k = 0; k < 48; k += 16) {
    const auto left = load_a<kTransposedA>(memory.a, row, k);
    OperandB<Element> right[2];
    load_b<kTransposedB>(right, memory.b, 0, k);
    multiply_add<Element>(sums[0], left, right[0]);
    multiply_add<Element>(sums[1], left, right[1]);
  }
  for (int part = 0; part < 2; ++part) {
    for (int i = 0; i < 4; ++i) store(c + (row + (lane_group() + i / 2 * 8 + kShift) % 16) * 16 + part * 8 + lane_pair() + i % 2, sums[part].values[i]);
  }
}

template <typename Element, bool kTransposedA, bool kTransposedB, int kShift = 0>
double largest_error() {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  Buffer<Element> a(32 * 48), b(48 * 16);
  Buffer<float> c(32 * 16, NAN);
  for (size_t i = 0; i < a.size(); ++i) a[i] = from_float<Element>(normal(random));
  for (size_t i = 0; i < b.size(); ++i) b[i] = from_float<Element>(normal(random));
  LAUNCH((product<Element, kTransposedA, kTransposedB, kShift>), 1, 64, (sizeof(Operands<Element, kTransposedA, kTransposedB>)), nullptr, a.data(), b.data(), c.data());
  double worst = 0;
  for (size_t i = 0; i < 32; ++i) {
    for (size_t j = 0; j < 16; ++j) {
      double sum = 0;
      for (size_t k = 0; k < 48; ++k) sum += static_cast<double>(to_float(a[kTransposedA ? k * 32 + i : i * 48 + k])) * to_float(b[kTransposedB ? k * 16 + j : j * 48 + k]);
      worst = std::max(worst, std::abs(c[i * 16 + j] - sum));
    }
  }
  return worst;
}

TYPED_TEST(MatrixOf, MultipliesAsLoopsDo) {
  EXPECT_LE((largest_error<TypeParam, false, false>()), 1e-5);
  EXPECT_LE((largest_error<TypeParam, true, false>()), 1e-5);
  EXPECT_LE((largest_error<TypeParam, false, true>()), 1e-5);
  EXPECT_LE((largest_error<TypeParam, true, true>()), 1e-5);
}

TYPED_TEST(MatrixOf, ShowsAWrongFragment) { EXPECT_GE((largest_error<TypeParam, false, false, 1>()), 1); }

template <typename Element>
GRAFT_KERNEL(kWarp) unwritten_operand(float* c) {
  Sums sums;
  set_zero(sums);
  OperandA<Element> a;
  OperandB<Element> b;
  set_pair(b, 0, 0, 0);   // 0 times NaN is NaN
  set_pair(b, 1, 0, 0);
  multiply_add<Element>(sums, a, b);
  store(c + thread_in_block(), sums.values[0]);
}

TYPED_TEST(MatrixOf, HasNanInUnwrittenOperands) {
  Buffer<float> c(kWarp);
  LAUNCH(unwritten_operand<TypeParam>, 1, kWarp, 0, nullptr, c.data());
  for (size_t i = 0; i < kWarp; ++i) EXPECT_TRUE(std::isnan(c[i]));
}

GRAFT_KERNEL(kWarp) sum_of_rows(float* sums) { store(sums + thread_in_block(), row_sum(static_cast<float>(1 << thread_in_block() % 16))); }

TEST(MatrixOfSums, RowsAreSummedOverTheirFourLanes) {
  Buffer<float> sums(kWarp);
  LAUNCH(sum_of_rows, 1, kWarp, 0, nullptr, sums.data());
  for (size_t lane = 0; lane < kWarp; ++lane) EXPECT_EQ(sums[lane], static_cast<float>(15 << lane % 16 / 4 * 4)) << lane;
}

TYPED_TEST(MatrixOf, LoadsWithoutBankConflicts) {
  if (sizeof(TypeParam) != 2) return;   // float32 is read element by element
  emulator::settings().count_bank_conflicts = true;
  emulator::launch_counts().clear();
  largest_error<TypeParam, false, true>();
  const auto counts = emulator::launch_counts().begin()->second;
  EXPECT_LE(counts.shared_wavefronts, counts.shared_requests * 1.2) << "of filling the tiles, element by element, too";
  emulator::settings().count_bank_conflicts = false;
}

TEST(Float16, RoundsToNearestEven) {
  for (const auto& [value, bits] : {std::pair{1.0F, 0x3c00}, {-2.0F, 0xc000}, {65504.0F, 0x7bff}, {65519.0F, 0x7bff}, {65520.0F, 0x7c00}, {0x1p-14F, 0x0400}, {0x1p-24F, 0x0001},
                                    {0x1p-25F, 0x0000}, {0x1.8p-24F, 0x0002}, {1.0F + 0x1p-11F, 0x3c00}, {1.0F + 0x1.8p-10F, 0x3c02}, {0x1.ffep-15F, 0x0400}}) {
    EXPECT_EQ(float16_bits(value), bits) << value;
  }
  for (int bits = 0; bits < 0x7c00; ++bits) EXPECT_EQ(float16_bits(float_of_float16(static_cast<uint16_t>(bits))), bits);
}

}  // namespace
}  // namespace graft::cuda
