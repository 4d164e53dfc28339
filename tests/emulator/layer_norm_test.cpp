// The kernels of layer norm, compiled for the CPU, against plain loops in double.
#include "kernels/layer_norm/layer_norm.cuh"

#include "tests/emulator/norm_cases.h"

namespace graft::cuda {
namespace {

template <typename Element>
class LayerNormKernels : public testing::Test {};
TYPED_TEST_SUITE(LayerNormKernels, emulator::RowElements);

TYPED_TEST(LayerNormKernels, EqualTheFormulaInDouble) {
  emulator::check_norms<TypeParam>(
      true, [](const NormForward& of, const float* bias, float* mean) { return launch(LayerNormForward{of, bias, mean}, nullptr); },
      [](const NormBackward& of, const float* mean) { return launch(LayerNormBackward{of, mean}, nullptr); });
}

}  // namespace
}  // namespace graft::cuda
