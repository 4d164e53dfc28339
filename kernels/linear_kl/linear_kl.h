// Distillation: the divergence of a student's next-token distribution from a teacher's, over blocks of rows of two linear heads: no [N, V] logits anywhere.
//
//   Q = softmax(z / T), z the student's logits h W^T, or softcap * tanh(h W^T / softcap);  P: the teacher's distribution, below;  T: the temperature
//   forward KL           D = KL(P || Q) = sum P (log P - log Q)        dD / d(z / T) = Q - P
//   reverse KL           D = KL(Q || P)                                dD / d(z / T) = Q (log Q - log P - D)
//   mixture, a, m        D = a KL(P || M) + (1 - a) KL(Q || M), M = m P + (1 - m) Q, 0 < m < 1
//                        dD / d(z / T) = Q (g - sum Q g), g = (1 - a) (log Q - log M) + (1 - m) (a - m) (Q - P) / M
//   loss_i = D_i, times T^2 with times_temperature_squared;  weighted_loss = sum_i weight_i loss_i;  gradient_MC = gradient_scale * d weighted_loss / dh
//
// Mixtures: the generalised Jensen-Shannon divergence has a = m = b (Agarwal et al. 2023, arXiv 2306.13649; b is its and TRL's beta, whose 0 and 1 are forward
// and reverse KL); skewed forward KL, KL(P || s P + (1 - s) Q), a = 1 and m = s, and skewed reverse KL, KL(Q || s Q + (1 - s) P), a = 0 and m = 1 - s
// (DistiLLM, Ko et al. 2024, arXiv 2402.03898), whose gradients stay bounded where one side finds nothing likely that the other says. T^2 (Hinton et al.
// 2015, arXiv 1503.02531) keeps the gradient's size alike over temperatures; TRL has no such factor, others have: a report must say which.
//
// The teacher has no gradient. It comes as
//   hidden states and head: P = softmax(logits / T), with the head's softcap;
//   dense log-probabilities or logits [M, V] at temperature 1: P = softmax(of them / T). Minus infinity is a probability of 0;
//   sparse entries: ids and log-probabilities at the loss's temperature, and the mass of all other tokens, which is one outcome more (the divergence of the two
//     distributions over entries and rest: a lower bound of D, and D itself where all tokens are entries). With no rest, as of counts of sampled ids (random
//     sampling, arXiv 2503.16870), forward KL and its gradient are those of that distribution itself, in expectation the whole one's; entries cut off at the top
//     with no rest are biased, so pass the rest.
// A token of probability 0 makes reverse KL infinite: sparse entries without a rest are refused for it.
//
// Products, softmax and loss in float32, sums in double; buffers take buffer_bytes, whatever the vocabulary. Where kernels run, each block is two products, one
// kernel (kl_rows.cuh) and a product.
#pragma once
#include <cstdint>
#include <span>
#include <variant>
#include <vector>

#include <ATen/core/Tensor.h>

#include "kernels/linear_head/linear_head.h"
#include "kernels/linear_kl/divergence.h"

namespace graft {

struct HiddenTeacher {
  at::Tensor hidden_MC;                             // bfloat16 or float32, on the student's device; its width may differ from the student's
  const HeadPieces& head;                           // with as many rows as the student's
};

struct DenseTeacher {
  at::Tensor logits_MV;                             // any floating type and device
};

// A row's entries are in any order; an id of -1 is none. Entries and rest are divided by their sum, which must be 1 to a hundredth.
struct SparseTeacher {
  int64_t num_entries = 0;                          // K, of each row
  std::span<const int32_t> ids_MK;
  std::span<const float> log_probabilities_MK;
  std::span<const float> tail_mass_M;               // of all other tokens; empty: what is missing to 1, none below 1e-6
  double temperature = 1;                           // at which the teacher gave them
};

using Teacher = std::variant<HiddenTeacher, DenseTeacher, SparseTeacher>;

struct KlOptions {
  Divergence divergence = Divergence::kForwardKl;
  Mixture mixture;                                  // of kMixture
  double temperature = 1;
  bool times_temperature_squared = false;
  bool want_gradient = true;
  double gradient_scale = 1;                        // 1 / the step's count of supervised tokens
  int64_t buffer_bytes = default_loss_buffer_bytes(true);
};

struct KlResult {
  double weighted_loss = 0;                         // sum of weight * loss
  std::vector<float> losses_M;                      // of each row, in nats
  at::Tensor gradient_MC;                           // of hidden, its type; undefined when not wanted
};

// hidden_MC: supervised rows only, bfloat16 or float32. weights: empty means 1.
KlResult linear_kl(const at::Tensor& hidden_MC, const HeadPieces& head, const Teacher& teacher, std::span<const float> weights_M, const KlOptions& options = {});
KlResult linear_kl(const at::Tensor& hidden_MC, const LinearHead& head_VC, const Teacher& teacher, std::span<const float> weights_M, const KlOptions& options = {});

// The same in plain ATen, any floating type and device: the specification.
KlResult linear_kl_reference(const at::Tensor& hidden_MC, const HeadPieces& head, const Teacher& teacher, std::span<const float> weights_M, const KlOptions& options = {});

}  // namespace graft
