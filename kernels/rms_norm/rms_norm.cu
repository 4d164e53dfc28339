#include "kernels/rms_norm/rms_norm.cuh"

#include "kernels/norm_rows/norm_kernels.cuh"

namespace graft::cuda {
namespace {

template <typename Shape>
GRAFT_KERNEL(Shape::kBlock) rms_norm_forward(const RmsNormForward arguments) {
  norm_forward<Shape, false>(arguments.of, Centring{});
}

template <typename Shape>
GRAFT_KERNEL(Shape::kBlock) rms_norm_backward(const RmsNormBackward arguments) {
  norm_backward<Shape, false>(arguments.of, CentringBackward{});
}

}  // namespace

const char* launch(const RmsNormForward& arguments, void* stream) {
  return for_norm_shape(arguments.of, [&](auto shape, int64_t blocks) {
    using Shape = decltype(shape);
    LAUNCH(rms_norm_forward<Shape>, blocks, Shape::kBlock, sizeof(NormMemory<Shape::kThreads>), stream, arguments);
  });
}

const char* launch(const RmsNormBackward& arguments, void* stream) {
  return for_norm_shape(arguments.of, [&](auto shape, int64_t blocks) {
    using Shape = decltype(shape);
    LAUNCH(rms_norm_backward<Shape>, blocks, Shape::kBlock, sizeof(NormMemory<Shape::kThreads>), stream, arguments);
  });
}

}  // namespace graft::cuda
