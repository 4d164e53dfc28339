// The lightning indexer of DeepSeek sparse attention (DeepSeek-V3.2, arXiv 2512.02556): which keys of its document each query attends to.
//
//   score(m, t) = sum over heads h of weight[m, h] * relu(q[m, h] . k[t])
//   query m selects the `count` keys with the largest scores of those up to its own; all of them where there are no more
//
// Letters: M queries, the last of T tokens of a document; H heads, which share one key; D head size. q [M, H, D], k [T, D], weights [M, H], float32;
// result uint8 [M, key_bytes(T)] (kernels/attention/key_bits.h), zero behind the query's own key. Of equal scores the earlier key is selected, and a score that
// is no number comes last. No gradient. The bits do not depend on the number of threads.
#pragma once
#include <cstdint>

#include <ATen/core/Tensor.h>

namespace graft {

at::Tensor sparse_index(const at::Tensor& q_MHD, const at::Tensor& k_TD, const at::Tensor& weights_MH, int64_t count);

// The same in plain ATen, any floating type and device, blocks of queries at a time: the specification, and what GPUs run. Which of equal scores is selected is
// torch.topk's choice.
at::Tensor sparse_index_reference(const at::Tensor& q_MHD, const at::Tensor& k_TD, const at::Tensor& weights_MH, int64_t count);

}  // namespace graft
