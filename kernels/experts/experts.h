// Experts of a mixture: each token goes through the experts that a router chose for it, and their results are summed with the router's weights.
//
//   h = p G_e^T + bias          G_e: the expert's matrices over each other (gate, up), with a LoRA adapter of its own
//   q = activation(h)           silu(gate) * up, or its clamped form
//   y = sum over k of w[n, k] * (q D_e^T + bias),   e = chosen[n, k]
//
// Every bank's product is W_e p + scale * B_e (A_e p), or W_e p where the weights hold that already (merged, as in lora_linear.h). Shapes: x [N, C], chosen int64 [N, K] (an expert at most once in a row), w float32 [N, K],
// G_e [O, C] with O = 2I, D_e [C, I], A [E * R, C] (row e * R + r), B [E * O, R] (row e * O + o), bias [E, O]; y as x: bfloat16 or float32. Products run in
// float32, or where x is bfloat16 and the machine multiplies that (bf16_tile_product.h) in bfloat16 with sums in float32. Gradients: x, w, A, B; weights and biases are frozen. Experts without tokens cost nothing; tokens are sorted by expert (counting sort) and each expert's
// rows are one product. The bits do not depend on the number of threads.
// Sparsely gated experts: Shazeer et al. 2017 (arXiv 1701.06538); the clamped form: gpt-oss model card (arXiv 2508.10925).
#pragma once
#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "kernels/frozen_weight/frozen_weight.h"

namespace graft {

// One matrix of every expert. With `parts` 2 it is two stored matrices over each other.
struct ExpertBank {
  int64_t num_experts = 0, parts = 1;
  std::vector<const FrozenWeight*> weights;   // [expert * parts + part]; outlive the backward pass
  at::Tensor bias_EO;                         // float32 or undefined
  at::Tensor lora_a_EC, lora_b_ER;            // [E * R, C], [E * O, R], float32 or undefined
  double scale = 0;
  bool merged = false;                        // `weights` hold scale * B_e A_e

  int64_t inputs() const { return weights.front()->columns(); }
  int64_t outputs() const;                    // of one expert
  int64_t rank() const { return lora_a_EC.defined() ? lora_a_EC.size(0) / num_experts : 0; }
};

struct ExpertActivation {
  enum class Kind { kSwiGlu, kClampedSwiGlu };
  Kind kind = Kind::kSwiGlu;
  // kClampedSwiGlu: gate = min(gate, limit), up = clamp(up, -limit, limit); gate * sigmoid(alpha * gate) * (up + 1)
  double alpha = 1.702, limit = 7;
};

at::Tensor experts(const at::Tensor& x_NC, const at::Tensor& chosen_NK, const at::Tensor& weights_NK, const ExpertBank& gate_up, const ExpertBank& down,
                   const ExpertActivation& activation = {});

// The same in plain ATen operations, any floating type and device, gradients by autograd: the specification, and what GPUs run where no kernel fits.
at::Tensor experts_reference(const at::Tensor& x_NC, const at::Tensor& chosen_NK, const at::Tensor& weights_NK, const ExpertBank& gate_up,
                             const ExpertBank& down, const ExpertActivation& activation = {});

}  // namespace graft
