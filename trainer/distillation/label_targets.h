// What a row's own tokens, its labels, change in a teacher's distribution. A label of kUnsupervised changes nothing.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include <ATen/core/Tensor.h>

#include "data/teacher_signals/signal_codec.h"
#include "kernels/linear_head/linear_head.h"
#include "trainer/models/batch.h"

namespace graft {

// Minifinetuning (Belcak et al. 2025, arXiv 2506.15702; as NVIDIA's Model-Optimizer has it): of each token the share s of P = softmax of the teacher's logits in s P + (1 - s) label.
// Where another token is likeliest, the label leads it there by `threshold`: s = (1 - threshold) / (1 - P(label) + largest P). Where the label is, its probability is
// P(label) + threshold, at most 1: s = (1 - P(label) - threshold) / (1 - P(label)). 0 <= threshold < 1.
std::vector<float> minifinetuning_shares(const at::Tensor& hidden_MC, const HeadPieces& head, std::span<const int32_t> labels_M, double threshold, int64_t buffer_bytes);

// Likeliest tokens whose rest is the label's.
SignalRows rest_to_labels(const SignalRows& rows, std::span<const int32_t> labels_M);
SignalRows rest_to_labels(const SignalRows& rows, const Batch& batch);   // of its taught tokens

}  // namespace graft
