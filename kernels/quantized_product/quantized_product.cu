#include "kernels/quantized_product/launch_by_type.cuh"

namespace graft::cuda {

const char* launch(const QuantizedProduct& arguments, void* stream) {
  bool known = false;
  for_row_type(arguments.type, [&](auto element) { known = launch_quantized_product<decltype(element)>(arguments, stream); });
  return known ? launch_error() : "no kernel multiplies this form";
}

}  // namespace graft::cuda
