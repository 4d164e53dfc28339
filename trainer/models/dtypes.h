// Types of numbers (DESIGN section 3). bfloat16: residual stream and stored activations in bfloat16; norm statistics, rotary tables, softmax,
// logits and loss in float32. float32: everything in float32, TF32 off. Adapters, their gradients and moments are float32 in both.
#pragma once
#include <string>

#include <c10/core/ScalarType.h>

namespace graft {

enum class ComputeType { kFloat32, kBFloat16 };

inline at::ScalarType scalar_type(ComputeType compute) {
  return compute == ComputeType::kFloat32 ? at::ScalarType::Float : at::ScalarType::BFloat16;
}
inline ComputeType compute_type(const std::string& name) {
  return name == "float32" ? ComputeType::kFloat32 : ComputeType::kBFloat16;
}

}  // namespace graft
