// The kernels of RMS norm, compiled for the CPU, against plain loops in double.
#include "kernels/rms_norm/rms_norm.cuh"

#include "tests/emulator/block.h"
#include "tests/emulator/norm_cases.h"

namespace graft::cuda {
namespace {

template <typename Element>
class RmsNormKernels : public testing::Test {};
TYPED_TEST_SUITE(RmsNormKernels, emulator::RowElements);

TYPED_TEST(RmsNormKernels, EqualTheFormulaInDouble) {
  emulator::check_norms<TypeParam>(
      false, [](const NormForward& of, const float*, float*) { return launch(RmsNormForward{of}, nullptr); },
      [](const NormBackward& of, const float*) { return launch(RmsNormBackward{of}, nullptr); });
}

TEST(NormShape, KeepsRowsInRegisters) {
  for (const int pack : {4, 8}) {
    const auto shape_of = [&](int width) {
      const auto shape = norm_shape(width, pack);
      return std::tuple(shape.threads, shape.keeps, shape.wide_packs);
    };
    EXPECT_EQ(shape_of(64 * pack), std::tuple(32, true, true));
    EXPECT_EQ(shape_of(65 * pack), std::tuple(128, true, true));
    EXPECT_EQ(shape_of(256 * pack), std::tuple(128, true, true));
    EXPECT_EQ(shape_of(512 * pack), std::tuple(256, true, true));
    EXPECT_EQ(shape_of(1024 * pack), std::tuple(512, true, true));
    EXPECT_EQ(shape_of(1025 * pack), std::tuple(512, false, true));
    EXPECT_EQ(shape_of(64 * pack + 1), std::tuple(128, false, false));
  }
}

}  // namespace
}  // namespace graft::cuda
