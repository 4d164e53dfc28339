#include "kernels/layer_norm/layer_norm.cuh"

#include "kernels/norm_rows/norm_kernels.cuh"

namespace graft::cuda {
namespace {

template <typename Shape>
GRAFT_KERNEL(Shape::kBlock) layer_norm_forward(const LayerNormForward arguments) {
  norm_forward<Shape, true>(arguments.of, Centring{arguments.bias_C, arguments.mean_N});
}

template <typename Shape>
GRAFT_KERNEL(Shape::kBlock) layer_norm_backward(const LayerNormBackward arguments) {
  norm_backward<Shape, true>(arguments.of, CentringBackward{arguments.mean_N});
}

}  // namespace

const char* launch(const LayerNormForward& arguments, void* stream) {
  return for_norm_shape(arguments.of, [&](auto shape, int64_t blocks) {
    using Shape = decltype(shape);
    LAUNCH(layer_norm_forward<Shape>, blocks, Shape::kBlock, sizeof(NormMemory<Shape::kThreads>), stream, arguments);
  });
}

const char* launch(const LayerNormBackward& arguments, void* stream) {
  return for_norm_shape(arguments.of, [&](auto shape, int64_t blocks) {
    using Shape = decltype(shape);
    LAUNCH(layer_norm_backward<Shape>, blocks, Shape::kBlock, sizeof(NormMemory<Shape::kThreads>), stream, arguments);
  });
}

}  // namespace graft::cuda
