// What RMS norm and layer norm have in common as operators: their checks, and how their kernels are called.
#pragma once
#include <optional>

#include <ATen/core/Tensor.h>

namespace graft {

// A residual stream after an addition, and its norm.
struct NormedSum {
  at::Tensor sum_NC, y_NC;
};

struct NormOptions {
  double epsilon = 0;
  // In bfloat16 and float16: y = round(weight * round(normed)) as Llama's modules compute it, else round(weight * normed) as Gemma's. Gradients are those
  // of the formula without rounding.
  bool rounds_before_weight = false;
};

// Typed errors: x [N, C] and what is added to it, alike, bfloat16 or float32 (kernels: float16 too); vectors [C] float32, on x's device.
void check_norm(const char* name, const at::Tensor& x_NC, const std::optional<at::Tensor>& residual_NC, const at::Tensor& weight_C,
                const std::optional<at::Tensor>& bias_C = {});

// By kernels, with gradients of x and the residual. With a bias it is a layer norm. Without a residual the sum is undefined.
NormedSum norm_by_kernels(const at::Tensor& x_NC, const std::optional<at::Tensor>& residual_NC, const at::Tensor& weight_C,
                          const std::optional<at::Tensor>& bias_C, const NormOptions& options);

}  // namespace graft
