#pragma once
#include "kernels/attention/attention.h"

namespace graft {

// What packed_attention and cached_attention expect. UserError that names the argument, what was expected and what came.
void check_attention(const at::Tensor& qkv, const AttentionOptions& options, std::span<const int32_t> positions, std::span<const int32_t> document_offsets);

}  // namespace graft
