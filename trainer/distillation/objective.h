// What a step minimises:
//
//   loss = (1 - teacher_share) * cross-entropy + teacher_share * [T^2] * divergence(teacher, student)
//
// With minifinetuning each token has a teacher_share of its own (label_targets.h): the gradient is that of KL from share * P + (1 - share) * label, P the teacher's distribution.
//
// cross-entropy: the mean over supervised tokens; divergence: over the tokens on which the teacher is followed, which are those or all. With the divergences of kernels/linear_kl, over blocks of rows of the two heads: no [N, V] logits of either model.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/linear_kl/linear_kl.h"
#include "trainer/distillation/teacher_signals.h"
#include "trainer/recipe/recipe.h"

namespace graft {

struct Objective {
  double teacher_share = 0;    // 0: cross-entropy alone
  Divergence divergence = Divergence::kForwardKl;
  Mixture mixture;
  double temperature = 1;
  bool times_temperature_squared = false;
  std::optional<double> minifinetuning;   // its threshold; of a teacher by hidden states, with a teacher_share of 1
};

Objective objective_of(const ObjectiveOptions& options);

// The loss in symbols, with the numbers of the recipe: for plan, log and report.
std::string objective_formula(const ObjectiveOptions& options, const TeacherOptions& teacher);

struct ObjectiveLoss {
  double weighted_loss = 0;              // gradient_scale times this is these rows' part of the loss
  double weighted_cross_entropy = 0;     // sum over tokens with a label of weight * negative log-likelihood
  double weighted_divergence = 0;        // sum over all rows of weight * divergence; 0 without a teacher
  std::vector<float> cross_entropies;    // of tokens with a label, in order
  std::vector<uint8_t> correct;          // the label has the highest logit
  at::Tensor gradient_MC;                // of hidden, its type; undefined when not wanted
};

struct ObjectiveLossOptions {
  bool want_gradient = true;
  double gradient_scale = 1;             // 1 / the step's count of supervised tokens
  std::optional<double> divergence_scale;   // 1 / that of tokens on which the teacher is followed; unset: the same
  int64_t buffer_bytes = default_loss_buffer_bytes(true);
};

// hidden_MC: rows that a loss is taken of. A label of kUnsupervised: of this row only the divergence. weights: empty means 1. teacher: of the same rows, where the objective has a share of it.
ObjectiveLoss objective_loss(const at::Tensor& hidden_MC, const HeadPieces& head, std::span<const int32_t> labels_M, std::span<const float> weights_M,
                             const Objective& objective, const TeacherSignals* teacher, const ObjectiveLossOptions& options);

}  // namespace graft
