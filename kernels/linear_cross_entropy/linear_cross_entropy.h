// Cross-entropy of a linear head over blocks of rows: no [N, V] logits anywhere.
//
//   logits_MV = h W^T, or softcap * tanh(h W^T / softcap);  lse_i = logsumexp(logits_i);  p_i = softmax(logits_i);  s = label_smoothing
//   loss_i = lse_i - (1 - s) logits_i[label_i] - s mean(logits_i) + z_loss lse_i^2;  weighted_loss = sum_i weight_i loss_i
//   dh_i = gradient_scale * weight_i * (p_i (1 + 2 z_loss lse_i) - (1 - s) onehot(label_i) - s / V) * (slope of the softcap) W
//
// Label smoothing: Szegedy et al. 2015, arXiv 1512.00567, section 7 (torch.nn.functional.cross_entropy's label_smoothing). z-loss: Chowdhery et al. 2022,
// arXiv 2204.02311, section 5, with 1e-4. As many rows as fit buffer_bytes at full vocabulary in float32; softmax and gradient overwrite the logits (4MHV
// FLOPs). The head's rows are decoded tile by tile, so memory does not grow with the vocabulary beyond the buffer. Products, softmax and loss in float32,
// sums in double. Where kernels run, each block is a product, one kernel (cross_entropy_rows.cuh) and a product.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

#include "kernels/linear_head/linear_head.h"

namespace graft {

struct CrossEntropyOptions {
  bool want_gradient = true;
  double gradient_scale = 1;                        // 1 / the step's count of supervised tokens
  int64_t buffer_bytes = default_loss_buffer_bytes(true);
  double z_loss = 0;                                // 0 or more
  double label_smoothing = 0;                       // 0 to 1
};

struct CrossEntropyResult {
  double weighted_loss = 0;                         // sum of weight * loss
  std::vector<float> losses_M;                      // of each row: the negative log-likelihood, where neither z-loss nor label smoothing is asked for
  std::vector<float> log_sums_M;                    // logsumexp of each row
  std::vector<uint8_t> correct_M;                   // the label has the highest logit
  at::Tensor gradient_MC;                           // of hidden, its type; undefined when not wanted
};

// hidden_MC: supervised rows only, bfloat16 or float32. labels: 0..V-1. weights: empty means 1.
CrossEntropyResult linear_cross_entropy(const at::Tensor& hidden_MC, const LinearHead& head_VC, std::span<const int32_t> labels_M,
                                        std::span<const float> weights_M, const CrossEntropyOptions& options = {});

CrossEntropyResult linear_cross_entropy(const at::Tensor& hidden_MC, const HeadPieces& head, std::span<const int32_t> labels_M,
                                        std::span<const float> weights_M, const CrossEntropyOptions& options = {});
// How many blocks of rows that takes: each goes through all pieces once, with a gradient twice.
int64_t cross_entropy_blocks(int64_t num_rows, int64_t vocab_size, int64_t buffer_bytes);

// The same in plain ATen, any floating type and device: the specification.
CrossEntropyResult linear_cross_entropy_reference(const at::Tensor& hidden_MC, const HeadPieces& head, std::span<const int32_t> labels_M,
                                                  std::span<const float> weights_M, const CrossEntropyOptions& options = {});
CrossEntropyResult linear_cross_entropy_reference(const at::Tensor& hidden_MC, const LinearHead& head_VC, std::span<const int32_t> labels_M,
                                                  std::span<const float> weights_M, const CrossEntropyOptions& options = {});

}  // namespace graft
