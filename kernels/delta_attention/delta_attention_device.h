// delta_attention by kernels (delta_attention.cuh), for tensors where those run.
#pragma once
#include "kernels/delta_attention/delta_attention.h"

namespace graft {

// Are there kernels for these heads, and rows of this type?
bool delta_attention_has_kernels(const DeltaAttentionInputs& inputs, const DeltaAttentionOptions& options);

at::Tensor delta_attention_by_kernels(const DeltaAttentionInputs& inputs, const DeltaAttentionOptions& options, std::span<const int32_t> document_offsets);

}  // namespace graft
