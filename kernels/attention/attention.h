// Causal softmax attention over packed documents, with rotary embedding and optional per-head RMS norm of queries and keys inside.
//
//   q, k <- rotate(head_norm(q, k)), or head_norm(rotate(q, k)); q <- query_scale(position) * q
//   scores = scale * q k^T; scores <- softcap * tanh(scores / softcap); scores <- scores + slope(head) * (key - query position)
//   out = softmax(scores and the head's sink, causal within a document, at most `window` keys back, selected keys only) v
//
// Letters: N tokens, H query heads, K key-value heads (H a multiple of K: GQA), D head size. qkv [N, (H + 2K) * D] = [q | k | v], bfloat16
// or float32; out [N, H * D] of the same type; scores and softmax in float32. Online softmax over key blocks, backward recomputes the scores
// (Dao et al. 2022, arXiv 2205.14135); saved: qkv, out and one log-sum-exp per row. Deterministic.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

namespace graft {

struct AttentionOptions {
  int64_t num_heads = 0, num_kv_heads = 0, head_size = 0;
  double scale = 0;
  at::Tensor query_norm_D, key_norm_D;   // float32; undefined: no head norm
  double head_norm_epsilon = 0;
  bool norm_after_rotation = false;
  at::Tensor cosine_PE, sine_PE;         // float32 [positions, E]: the first 2E elements of a head turn (E <= D/2). Undefined: no rotation
  bool neighbouring_pairs = false;       // pairs are (2i, 2i + 1); else (i, i + E)
  at::Tensor query_scale_P;              // float32 [positions]; undefined: 1
  int64_t window = 0;                    // a query sees the last `window` keys, its own included; 0: all
  double softcap = 0;                    // 0: none (Gemma 2, arXiv 2408.00118)
  at::Tensor alibi_slopes_H;             // float32 (Press et al. 2022, arXiv 2108.12409); undefined: none
  at::Tensor sinks_H;                    // float32: a further score of each head, of a key without a value (gpt-oss, arXiv 2508.10925); undefined: none
  int64_t shared_prefix = 0;             // the first document's first tokens, which every later document sees as if they stood before its own
  // uint8 (key_bits.h): the keys of its document that token n sees, at least one, those before the document (of the shared prefix, or cached) first; later
  // keys stay unseen whatever it says. As much is computed as without. Undefined: all.
  at::Tensor selected_keys_NB;
};

// Keys and values of earlier tokens, one per sequence, already rotated. Copies share what is on a device until one of them grows.
struct KeyValueCache {
  std::vector<float> keys, values;                     // [K, capacity, D], where attention runs on the CPU
  at::Tensor device_keys_TC, device_values_TC;         // [its capacity, K * D] of the projections' type, where kernels run
  std::vector<float> index_keys;                       // of the layer's indexer, where it has one: [tokens, its head size]
  int64_t length = 0, capacity = 0, reserved = 0;      // tokens; reserved: how many are expected, so that buffers grow once
};

// document_offsets: D+1 rising values from 0 to N. positions: of each token, a row of the tables. Window and slopes count a document's keys.
at::Tensor packed_attention(const at::Tensor& qkv, const AttentionOptions& options, std::span<const int32_t> positions,
                            std::span<const int32_t> document_offsets);

// The tokens between two offsets continue the sequence of caches[d], which grows by them. No gradient. A sequence stays where it began: on the CPU or a device.
at::Tensor cached_attention(const at::Tensor& qkv, const AttentionOptions& options, std::span<const int32_t> positions,
                            std::span<const int32_t> document_offsets, std::span<KeyValueCache* const> caches);

// The same in plain ATen, any floating type and device, gradients by autograd: the specification of packed_attention, and what GPUs run. Scores of a
// whole document at a time; bfloat16 is computed in float32.
at::Tensor packed_attention_reference(const at::Tensor& qkv, const AttentionOptions& options, std::span<const int32_t> positions,
                                      std::span<const int32_t> document_offsets);

}  // namespace graft
