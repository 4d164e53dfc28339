#include "kernels/quantized_product/quantized_product_kernel.cuh"

namespace graft::cuda {

template bool launch_quantized_product<Float16>(const QuantizedProduct& arguments, void* stream);

}  // namespace graft::cuda
