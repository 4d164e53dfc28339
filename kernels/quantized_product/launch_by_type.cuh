// The products of each element type are instantiated in a file of their own, because they take long to compile.
#pragma once
#include "kernels/cuda/elements.cuh"
#include "kernels/quantized_product/quantized_product.cuh"

namespace graft::cuda {

// False: no such form.
template <typename Element>
bool launch_quantized_product(const QuantizedProduct& arguments, void* stream);

}  // namespace graft::cuda
