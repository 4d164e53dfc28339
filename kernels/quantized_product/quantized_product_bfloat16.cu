#include "kernels/quantized_product/quantized_product_kernel.cuh"

namespace graft::cuda {

template bool launch_quantized_product<Bfloat16>(const QuantizedProduct& arguments, void* stream);

}  // namespace graft::cuda
