#include "kernels/quantized_product/launch_by_type.cuh"

namespace graft::cuda {

const char* launch(const QuantizedProduct& arguments, void* stream) {
  bool known = false;
  switch (arguments.type) {
    case RowType::kFloat32: known = launch_quantized_product<float>(arguments, stream); break;
    case RowType::kBfloat16: known = launch_quantized_product<Bfloat16>(arguments, stream); break;
    case RowType::kFloat16: known = launch_quantized_product<Float16>(arguments, stream); break;
  }
  return known ? launch_error() : "no kernel multiplies this form";
}

}  // namespace graft::cuda
