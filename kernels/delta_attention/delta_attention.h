// Attention by the gated delta rule over packed documents, with the causal convolution before it and the gated norm behind it.
//
//   q, k, v <- silu(causal convolution of each channel over its last K tokens);  q, k <- x / sqrt(sum(x^2) + 1e-6) in each head;  q <- q / sqrt(D)
//   beta = sigmoid(b);  decay = exp(-rate * softplus(a + decay_bias))
//   S <- decay * S;  S <- S + k (beta * (v - S^T k))^T;  o = S^T q          of every value head, token after token: S [D, V]
//   out = o / sqrt(mean(o^2) + epsilon) * norm_weight * gate(z)              in each head
//
// The decay is one number a value head (Gated DeltaNet: Yang et al. 2024, arXiv 2412.06464) or one a key channel of a head (Kimi Delta Attention: Kimi Team 2025,
// arXiv 2510.26692). Convolution and state begin anew with every document.
//
// Letters: N tokens, G key heads, H value heads (a multiple of G; value head h reads key head h / (H / G), tiled h % G), D key size, V value size of a head, K taps.
// Gradients: qkv, a, b, z; the rest is frozen. States and sums are float32. Saved: the inputs; the backward pass computes states anew, in memory of N / 16 states
// of one value head. The bits do not depend on the number of threads. By kernels (delta_attention.cuh), a state every 64 or 32 tokens is saved too, and sums have
// operands of the inputs' type.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

namespace graft {

struct DeltaAttentionOptions {
  enum class Gate { kSilu, kSigmoid };
  int64_t num_key_heads = 0, num_value_heads = 0, key_size = 0, value_size = 0;
  bool tiled_value_heads = false;
  at::Tensor convolution_CK;    // float32 [2 * G * D + H * V, K]: the last tap is the token's own
  at::Tensor decay_rate_H;      // float32, at least 0
  at::Tensor decay_bias_A;      // float32 [H], or [H * D]: then a, too, has a value for every key channel
  at::Tensor norm_weight_V;     // float32
  double norm_epsilon = 0;
  Gate gate = Gate::kSilu;

  int64_t channels() const { return 2 * num_key_heads * key_size + num_value_heads * value_size; }
};

struct DeltaAttentionInputs {   // of one type, bfloat16 or float32
  at::Tensor qkv_NC;            // [q of all key heads | k | v of all value heads]
  at::Tensor a_NA, b_NH;
  at::Tensor z_NV;              // [N, H * V]
};

// What is kept of earlier tokens of one sequence; empty before the first.
struct DeltaState {
  int64_t length = 0;           // tokens so far
  std::vector<float> tail;      // [K - 1, C]: the last tokens' qkv, before the convolution
  std::vector<float> states;    // [H, D, V]
};

// [N, H * V] in the inputs' type. document_offsets: rising values from 0 to N.
at::Tensor delta_attention(const DeltaAttentionInputs& inputs, const DeltaAttentionOptions& options, std::span<const int32_t> document_offsets);

// The tokens between two offsets continue the sequence of states[d]. No gradient.
at::Tensor cached_delta_attention(const DeltaAttentionInputs& inputs, const DeltaAttentionOptions& options, std::span<const int32_t> document_offsets,
                                  std::span<DeltaState* const> states);

// The same in plain ATen, token after token, any floating type and device, gradients by autograd: the specification, and what GPUs run where no kernel
// takes the sizes.
at::Tensor delta_attention_reference(const DeltaAttentionInputs& inputs, const DeltaAttentionOptions& options, std::span<const int32_t> document_offsets);

}  // namespace graft
