#include "kernels/attention/attention_checks.h"

#include <algorithm>

#include "kernels/attention/key_bits.h"
#include "kernels/common/check_tensor.h"

namespace graft {
namespace {

void check_offsets(const at::Tensor& qkv, const AttentionOptions& options, std::span<const int32_t> offsets) {
  if (offsets.empty() || offsets.front() != 0 || offsets.back() != qkv.size(0)) {
    fail("kernels", "attention: expected document offsets from 0 to {}, got {} to {}", qkv.size(0), offsets.empty() ? 0 : offsets.front(), offsets.empty() ? 0 : offsets.back());
  }
  const auto falls = std::is_sorted_until(offsets.begin(), offsets.end());
  if (falls != offsets.end()) fail("kernels", "attention: expected document offsets that rise, got {} after {}", *falls, *(falls - 1));
  if (options.shared_prefix != 0 && (offsets.size() < 2 || options.shared_prefix < 0 || options.shared_prefix > offsets[1])) {
    fail("kernels", "attention: expected a shared prefix within the first document, got {} tokens", options.shared_prefix);
  }
}

void check_positions(const AttentionOptions& options, int64_t tokens, std::span<const int32_t> positions) {
  if (static_cast<int64_t>(positions.size()) != tokens) fail("kernels", "attention: expected one position a token ({}), got {}", tokens, positions.size());
  for (const auto& table : {options.cosine_PE, options.query_scale_P}) {
    if (!table.defined()) continue;
    for (const auto position : positions) {
      if (position < 0 || position >= table.size(0)) fail("kernels", "attention: expected positions below {}, got {}", table.size(0), position);
    }
  }
}

}  // namespace

void check_attention(const at::Tensor& qkv, const AttentionOptions& options, std::span<const int32_t> positions, std::span<const int32_t> document_offsets) {
  constexpr const char* kName = "attention";
  if (options.head_size < 1 || options.num_kv_heads < 1 || options.num_heads % options.num_kv_heads != 0) {
    fail("kernels", "attention: expected a head size from 1 on and query heads in a multiple of the key-value heads, got {}, {} and {}", options.head_size, options.num_heads,
         options.num_kv_heads);
  }
  const auto device = qkv.device();
  check_tensor(kName, "qkv", qkv, device, {at::kFloat, at::kBFloat16}, {-1, (options.num_heads + 2 * options.num_kv_heads) * options.head_size});
  check_offsets(qkv, options, document_offsets);
  check_tensor(kName, "query_norm", options.query_norm_D, device, {at::kFloat}, {options.head_size});
  check_tensor(kName, "key_norm", options.key_norm_D, device, {at::kFloat}, {options.head_size});
  check_tensor(kName, "alibi_slopes", options.alibi_slopes_H, device, {at::kFloat}, {options.num_heads});
  check_tensor(kName, "sinks", options.sinks_H, device, {at::kFloat}, {options.num_heads});
  check_tensor(kName, "query_scale", options.query_scale_P, device, {at::kFloat}, {-1});
  check_tensor(kName, "cosine", options.cosine_PE, device, {at::kFloat}, {-1, -1});
  if (options.cosine_PE.defined()) {
    check_tensor(kName, "sine", options.sine_PE, device, {at::kFloat}, options.cosine_PE.sizes());
    if (options.cosine_PE.size(1) * 2 > options.head_size) fail("kernels", "attention: expected at most {} turning pairs, got {}", options.head_size / 2, options.cosine_PE.size(1));
  }
  check_positions(options, qkv.size(0), positions);
  if (const auto& bits = options.selected_keys_NB; bits.defined()) {
    int64_t most = 0;   // without those of caches
    for (size_t d = 0; d + 1 < document_offsets.size(); ++d) {
      most = std::max<int64_t>(most, document_offsets[d + 1] - document_offsets[d] + (d == 0 ? 0 : options.shared_prefix));
    }
    check_tensor(kName, "selected_keys", bits, device, {at::kByte}, {qkv.size(0), -1});
    if (!bits.is_contiguous() || bits.size(1) < key_bytes(most)) fail("kernels", "attention: expected selected keys as {} bytes or more a row, got {}", key_bytes(most), bits.size(1));
  }
}

}  // namespace graft
