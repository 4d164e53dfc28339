// A router's choice: the experts that a token goes through, and their weights, from its logits.
//
//   s = softmax(logits) | sigmoid(logits) | sqrt(softplus(logits)) | logits (kSoftmaxOfChosen)
//   chosen = the K best of s + selection bias, among all experts, those of the best groups, or one of each group
//   w = s of the chosen; of kSoftmaxOfChosen the softmax over them;  renormalised: w / max(sum of w, smallest_sum);  then * scale * expert scale
//
// Groups are neighbours, equally many; one counts as its best s + bias or as the sum of its two best. Shapes: logits [N, E], both vectors [E], w [N, K],
// float32; chosen int64 [N, K], best first, one of each group: by group. Gradient: logits, through w only.
// Errors: more experts or groups than there are, groups of no whole number of experts, logits that are not finite. On a GPU the last is not looked at, which
// would be a wait: such weights are NaN, and so is the loss.
// Softmax before the choice: Shazeer et al. 2017 (arXiv 1701.06538); sigmoid, bias and groups: DeepSeek-V3 (arXiv 2412.19437); one of each group: Pangu Pro MoE
// (arXiv 2505.21411).
#pragma once
#include <ATen/core/Tensor.h>

#include "kernels/router/router.cuh"

namespace graft {

struct RouterOptions {
  using Score = cuda::RouterForward::Score;
  using GroupScore = cuda::RouterForward::GroupScore;
  int64_t experts_per_token = 1;
  Score score = Score::kSoftmax;
  int64_t num_groups = 1, groups_per_token = 1;
  GroupScore group_score = GroupScore::kTwoBest;
  bool one_per_group = false;
  bool renormalise = false;
  double smallest_sum = 0, scale = 1;
};

struct Routed {
  at::Tensor chosen_NK, weights_NK;
};

Routed route(const RouterOptions& options, const at::Tensor& logits_NE, const at::Tensor& selection_bias_E = {}, const at::Tensor& expert_scale_E = {});

// Plain ATen, any floating type and device, gradients by autograd: the specification.
Routed route_reference(const RouterOptions& options, const at::Tensor& logits_NE, const at::Tensor& selection_bias_E = {},
                       const at::Tensor& expert_scale_E = {});

}  // namespace graft
