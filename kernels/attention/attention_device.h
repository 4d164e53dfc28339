// Attention by kernels (attention.cuh), for tensors where those run.
#pragma once
#include "kernels/attention/attention.h"

namespace graft {

// Are there kernels for heads of this size and rows of this alignment?
bool attention_has_kernels(const at::Tensor& qkv, const AttentionOptions& options);

at::Tensor packed_attention_by_kernels(const at::Tensor& qkv, const AttentionOptions& options, std::span<const int32_t> positions,
                                       std::span<const int32_t> document_offsets);
at::Tensor cached_attention_by_kernels(const at::Tensor& qkv, const AttentionOptions& options, std::span<const int32_t> positions,
                                       std::span<const int32_t> document_offsets, std::span<KeyValueCache* const> caches);

}  // namespace graft
