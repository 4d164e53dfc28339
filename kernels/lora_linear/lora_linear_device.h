// lora_linear on a GPU: products with the frozen weights as they lie there (quantized_product.h), the low-rank part and dropout by kernels (lora_linear.cuh). Operands of 16 bits are rounded as
// in the reference; the product with W is rounded before bias and low-rank part are added to it in float32, and gradients of x likewise, part by part.
#pragma once
#include "kernels/lora_linear/lora_linear.h"

namespace graft {

bool lora_linear_has_kernels(const at::Tensor& x_NC, const std::vector<LinearPart>& parts);

at::Tensor lora_linear_by_kernels(const at::Tensor& x_NC, const LinearPrologue& prologue, const std::vector<LinearPart>& parts, const LoraDropout& dropout);

}  // namespace graft
