// Linear layers with a frozen weight and a LoRA adapter, several on one input, behind a cheap prologue that backward repeats instead of saving it.
//
//   p = prologue(x)                         none | RMS norm | silu(gate) * up or gelu(gate) * up of the two halves of x | gelu(x)
//   y_part = p W^T + bias + scale * (dropout(p) A^T) B^T         for each part; y = [y_1 | y_2 | ...]
//
// Shapes: x [N, C] (gated: [N, 2C]), W [O, C], A [R, C], B [O, R], y [N, sum of O]. x and y share one type, bfloat16 or float32; products
// accumulate in float32, and in bfloat16 round their operands to it where the machine multiplies bfloat16 (elsewhere they keep float32). Gradients: x, A, B. W, bias and norm weights are frozen: 4 FLOPs per parameter and token, not 6.
// Where the weight holds the low-rank product already, as rounded weights for training through a rounding do (LinearPart::merged), it is not added again:
//   y_part = p W^T + bias, dp = dy W;   dB = scale * dy^T (p A^T), dA = scale * B^T dy^T p, straight through the rounding (Bengio et al. 2013, arXiv 1308.3432).
// A part may be trained whole instead (LinearPart::whole_OC): its gradient is dW = dy^T p.
// LoRA: Hu et al. 2021 (arXiv 2106.09685). The low-rank product rides in the inner dimension: [p | scale*z] [W | B]^T is one product, and so
// is its transpose in backward.
#pragma once
#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "kernels/frozen_weight/frozen_weight.h"

namespace graft {

struct LinearPrologue {
  enum class Kind { kNone, kRmsNorm, kSwiGlu, kGeluTanhGated, kGeluTanh };   // gelu in its tanh form
  Kind kind = Kind::kNone;
  at::Tensor norm_weight_C;   // float32
  double epsilon = 0;
  bool gated() const { return kind == Kind::kSwiGlu || kind == Kind::kGeluTanhGated; }
};

struct LinearPart {
  const FrozenWeight* weight = nullptr;   // outlives the backward pass
  at::Tensor bias_O;                      // float32 or undefined
  at::Tensor lora_a_RC, lora_b_OR;        // float32 or undefined
  double scale = 0;
  bool merged = false;                    // `weight` holds scale * B A; the same for all parts with an adapter, and without dropout
  at::Tensor whole_OC;                    // float32 or undefined: the matrix itself, trained; `weight` holds its values, or what they are rounded to. No A and B then
};

// Dropout on the input of the adapter: an element is kept when a counter-based random of (key, row key, column) is at least `probability`.
struct LoraDropout {
  double probability = 0;
  uint64_t key = 0;                       // of (seed, step, module)
  at::Tensor row_keys_N;                  // int64: of (row id, position), so that packing does not change the mask
};

at::Tensor lora_linear(const at::Tensor& x_NC, const LinearPrologue& prologue, const std::vector<LinearPart>& parts,
                       const LoraDropout& dropout = {});

// The same in plain ATen operations, any floating type and device, gradients by autograd: the specification. In bfloat16 the
// operands of products are bfloat16 (accumulated in float32); the prologue and the sum of base, bias and adapter are float32.
at::Tensor lora_linear_reference(const at::Tensor& x_NC, const LinearPrologue& prologue, const std::vector<LinearPart>& parts,
                                 const LoraDropout& dropout = {});

// LinearPart::merged of the parts with an adapter. UserError where they differ, or with dropout, which has no place in a merged weight.
bool adapters_are_merged(const std::vector<LinearPart>& parts, const LoraDropout& dropout);

// p of the specification.
at::Tensor linear_prologue_reference(const at::Tensor& x_NC, const LinearPrologue& prologue);

// The mask's value for one element: 0 or 1/(1-probability).
float dropout_factor(const LoraDropout& dropout, int64_t row_key, int64_t column);
// All values of the mask, float32 [N, columns], computed on a device.
at::Tensor dropout_mask(const LoraDropout& dropout, int64_t columns, c10::Device device);

}  // namespace graft
