// What stands between the two products of an MLP: an activation, mostly of one half of its input and multiplied by the other (Shazeer 2020, arXiv 2002.05202).
//   kSwiGlu            y = silu(gate) * up
//   kGeluTanhGated     y = gelu(gate) * up                    gelu in its tanh form (Hendrycks and Gimpel 2016, arXiv 1606.08415)
//   kClampedSwiGlu     y = g * sigmoid(alpha * g) * (u + 1)   g = min(gate, limit), u = clamp(up, -limit, limit); gpt-oss model card (arXiv 2508.10925)
//   kGeluTanh          y = gelu(x)
// x [N, 2I] (kGeluTanh: [N, I]), y [N, I] alike in type: any floating one; kernels take bfloat16, float16 and float32. Computed in float32, rounded once.
// Gradient: x, from x alone.
#pragma once
#include <ATen/core/Tensor.h>

#include "kernels/gated_activation/gated_activation.cuh"

namespace graft {

struct GatedActivation {
  using Kind = cuda::GatedActivationRows::Kind;
  Kind kind = Kind::kSwiGlu;
  bool interleaved = false;         // a row is gate, up, gate, up, ...; else all gates, then all ups
  double alpha = 1.702, limit = 7;  // of kClampedSwiGlu
  bool gated() const { return kind != Kind::kGeluTanh; }
};

at::Tensor gated_activation(const at::Tensor& x, const GatedActivation& activation);

// Plain ATen, any device, gradients by autograd: the specification.
at::Tensor gated_activation_reference(const at::Tensor& x, const GatedActivation& activation);

}  // namespace graft
