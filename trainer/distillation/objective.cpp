#include "trainer/distillation/objective.h"

#include "kernels/common/error.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace graft {

namespace {

Divergence divergence_of(const std::string& name) {
  return name == "forward_kl" ? Divergence::kForwardKl : name == "reverse_kl" ? Divergence::kReverseKl : Divergence::kJensenShannon;
}

KlOptions kl_options(const Objective& objective, const ObjectiveLossOptions& options) {
  KlOptions kl;
  kl.divergence = objective.divergence;
  kl.jensen_shannon_weight = objective.jensen_shannon_weight;
  kl.temperature = objective.temperature;
  kl.times_temperature_squared = objective.times_temperature_squared;
  kl.want_gradient = options.want_gradient;
  kl.gradient_scale = options.gradient_scale * objective.teacher_share;
  kl.buffer_bytes = options.buffer_bytes;
  return kl;
}

}  // namespace

Objective objective_of(const ObjectiveOptions& options) {
  if (!options.distils()) return {};
  return {options.teacher_share, divergence_of(options.divergence), options.jensen_shannon_weight, options.temperature, options.times_temperature_squared};
}

std::string objective_formula(const ObjectiveOptions& options, const TeacherOptions& teacher) {
  if (!options.distils()) return "cross-entropy of the supervised tokens";
  const double b = options.jensen_shannon_weight;
  std::string divergence = options.divergence == "forward_kl"   ? "KL(P || Q)"
                           : options.divergence == "reverse_kl" ? "KL(Q || P)"
                                                                : fmt::format("[{:g} KL(P || M) + {:g} KL(Q || M)], M = {:g} P + {:g} Q", b, 1 - b, b, 1 - b);
  if (options.times_temperature_squared) divergence = fmt::format("{:g}^2 ", options.temperature) + divergence;
  const double share = options.teacher_share;
  const auto loss = share == 1 ? divergence : fmt::format("{:g} cross-entropy + {:g} {}", 1 - share, share, divergence);
  const auto entries = !teacher.cached()          ? std::string("of all tokens, beside the student")
                       : teacher.entries == "top" ? fmt::format("of its {} likeliest tokens and the rest as one outcome, from the store", teacher.num_entries)
                                                  : fmt::format("as counts of {} draws, from the store", teacher.num_entries);
  return fmt::format("{}; P the teacher's distribution {}, Q the student's, both softmax(logits{}); mean over supervised tokens", loss, entries,
                     options.temperature == 1 ? "" : fmt::format(" / {:g}", options.temperature));
}

ObjectiveLoss objective_loss(const at::Tensor& hidden_MC, const HeadPieces& head, std::span<const int32_t> labels_M, std::span<const float> weights_M,
                             const Objective& objective, const TeacherSignals* teacher, const ObjectiveLossOptions& options) {
  const double share = teacher ? objective.teacher_share : 0;
  CrossEntropyOptions entropy_options;
  entropy_options.want_gradient = options.want_gradient && share < 1;
  entropy_options.gradient_scale = options.gradient_scale * (1 - share);
  entropy_options.buffer_bytes = options.buffer_bytes;
  auto entropy = linear_cross_entropy(hidden_MC, head, labels_M, weights_M, entropy_options);
  ObjectiveLoss loss{(1 - share) * entropy.weighted_loss, entropy.weighted_loss, 0, std::move(entropy.losses_M), std::move(entropy.correct_M), entropy.gradient_MC};
  if (share == 0) return loss;
  const auto divergence = linear_kl(hidden_MC, teacher->student_head ? *teacher->student_head : head, teacher->view(), weights_M, kl_options(objective, options));
  loss.weighted_divergence = divergence.weighted_loss;
  loss.weighted_loss += share * divergence.weighted_loss;
  if (options.want_gradient) loss.gradient_MC = loss.gradient_MC.defined() ? loss.gradient_MC.add(divergence.gradient_MC) : divergence.gradient_MC;
  return loss;
}

}  // namespace graft
