#include "trainer/distillation/objective.h"

#include <algorithm>
#include <cmath>

#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>

#include "kernels/common/error.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "trainer/distillation/label_targets.h"
#include "trainer/models/batch.h"

namespace graft {

namespace {

Divergence divergence_of(const std::string& name) {
  return name == "forward_kl" ? Divergence::kForwardKl : name == "reverse_kl" ? Divergence::kReverseKl : Divergence::kMixture;
}

Mixture mixture_of(const ObjectiveOptions& options) {
  return options.divergence == "skewed_forward_kl"   ? skewed_forward_kl(options.skew)
         : options.divergence == "skewed_reverse_kl" ? skewed_reverse_kl(options.skew)
                                                     : jensen_shannon(options.jensen_shannon_weight);
}

std::string divergence_formula(const ObjectiveOptions& options) {
  if (options.divergence == "forward_kl") return "KL(P || Q)";
  if (options.divergence == "reverse_kl") return "KL(Q || P)";
  const double b = options.jensen_shannon_weight, skew = options.skew;
  if (options.divergence == "skewed_forward_kl") return fmt::format("KL(P || {:g} P + {:g} Q)", skew, 1 - skew);
  if (options.divergence == "skewed_reverse_kl") return fmt::format("KL(Q || {:g} Q + {:g} P)", skew, 1 - skew);
  return fmt::format("[{:g} KL(P || M) + {:g} KL(Q || M)], M = {:g} P + {:g} Q", b, 1 - b, b, 1 - b);
}

// The rows with a label: most often all.
struct Labelled {
  at::Tensor hidden, index;      // index: where among all rows; undefined where it is all of them
  std::vector<int64_t> rows;     // the same
  std::vector<int32_t> labels;
  std::vector<float> weights;

  Labelled(const at::Tensor& hidden_MC, std::span<const int32_t> labels_M, std::span<const float> weights_M) : hidden(hidden_MC) {
    for (size_t m = 0; m < labels_M.size(); ++m) {
      if (labels_M[m] == kUnsupervised) continue;
      rows.push_back(static_cast<int64_t>(m));
      labels.push_back(labels_M[m]);
      if (!weights_M.empty()) weights.push_back(weights_M[m]);
    }
    if (rows.size() == labels_M.size()) return;
    index = at::tensor(rows, at::kLong).to(hidden_MC.device());
    hidden = hidden_MC.index_select(0, index);
  }

  // Zeros for the rows without a label.
  at::Tensor put_back(const at::Tensor& gradient, const at::Tensor& hidden_MC) const {
    return index.defined() && gradient.defined() ? at::zeros_like(hidden_MC).index_copy_(0, index, gradient) : gradient;
  }
};

// Of losses of some rows, or of all where `rows` is empty.
double weighted_sum(std::span<const float> losses, std::span<const int64_t> rows, std::span<const float> weights_M) {
  double sum = 0;
  for (size_t i = 0; i < losses.size(); ++i) sum += losses[i] * (weights_M.empty() ? 1.0 : weights_M[rows.empty() ? i : static_cast<size_t>(rows[i])]);
  return sum;
}

KlOptions kl_options(const Objective& objective, double divergence_scale, const ObjectiveLossOptions& options) {
  KlOptions kl;
  kl.divergence = objective.divergence;
  kl.mixture = objective.mixture;
  kl.temperature = objective.temperature;
  kl.times_temperature_squared = objective.times_temperature_squared;
  kl.want_gradient = options.want_gradient;
  kl.gradient_scale = divergence_scale * objective.teacher_share;
  kl.buffer_bytes = options.buffer_bytes;
  return kl;
}

// (1 - share) * cross-entropy + share * divergences of spans (span_teacher.h). Both are sums over tokens' log-probabilities in their gradients, so that one pass with weights
// of tokens gives the gradient of the whole, once a first one has said how likely the spans are.
ObjectiveLoss span_loss(const at::Tensor& hidden_MC, const HeadPieces& head, std::span<const int32_t> labels_M, std::span<const float> weights_M, const Objective& objective,
                        const TeacherSignals& teacher, const ObjectiveLossOptions& options) {
  constexpr double kMost = 1 - 1e-9;   // of a probability, so that the other outcome has one too
  const double share = objective.teacher_share, divergence_scale = options.divergence_scale.value_or(options.gradient_scale);
  CrossEntropyOptions plain;
  plain.want_gradient = false;
  plain.buffer_bytes = options.buffer_bytes;
  auto entropy = linear_cross_entropy(hidden_MC, head, labels_M, weights_M, plain);
  ObjectiveLoss loss;
  loss.weighted_cross_entropy = entropy.weighted_loss;
  std::vector<float> weights(labels_M.size());
  const auto weight_of = [&](size_t token) { return weights_M.empty() ? 1.0f : weights_M[token]; };
  for (size_t m = 0; m < weights.size(); ++m) weights[m] = static_cast<float>((1 - share) * options.gradient_scale * weight_of(m));
  for (const auto& span : teacher.spans) {
    double log_q = 0;
    for (int64_t token = span.first; token < span.first + span.count; ++token) log_q -= entropy.losses_M[static_cast<size_t>(token)];
    const double p = std::min(std::exp(span.log_probability), kMost), q = std::min(std::exp(log_q), kMost);
    const double weight = weight_of(static_cast<size_t>(span.first));
    loss.weighted_divergence += weight * (p * (span.log_probability - log_q) + (1 - p) * (std::log1p(-p) - std::log1p(-q)));
    const double of_tokens = share * divergence_scale * weight * (p - q) / (1 - q);
    for (int64_t token = span.first; token < span.first + span.count; ++token) weights[static_cast<size_t>(token)] += static_cast<float>(of_tokens);
  }
  loss.weighted_loss = (1 - share) * loss.weighted_cross_entropy + share * loss.weighted_divergence * (divergence_scale / options.gradient_scale);
  loss.cross_entropies = std::move(entropy.losses_M);
  loss.correct = std::move(entropy.correct_M);
  if (!options.want_gradient) return loss;
  CrossEntropyOptions with_gradient;
  with_gradient.buffer_bytes = options.buffer_bytes;
  loss.gradient_MC = linear_cross_entropy(hidden_MC, head, labels_M, weights, with_gradient).gradient_MC;
  return loss;
}

}  // namespace

Objective objective_of(const ObjectiveOptions& options) {
  if (!options.distils()) return {};
  return {options.teacher_share, divergence_of(options.divergence), mixture_of(options), options.temperature, options.times_temperature_squared, options.minifinetuning};
}

std::string objective_formula(const ObjectiveOptions& options, const TeacherOptions& teacher) {
  if (!options.distils()) return "cross-entropy of the supervised tokens";
  if (teacher.answers()) return "cross-entropy of the tokens of the teacher's answers (sequence-level)";
  if (options.by_spans()) {
    const auto divergence = "[p log(p / q) + (1 - p) log((1 - p) / (1 - q))]";
    const auto loss = options.teacher_share == 1 ? std::string(divergence) : fmt::format("{:g} cross-entropy + {:g} {}", 1 - options.teacher_share, options.teacher_share, divergence);
    return fmt::format("{}; p and q: the probabilities that teacher and student give a span of the answer's text at whose end tokens of both end; sum over spans, over the supervised tokens", loss);
  }
  auto divergence = divergence_formula(options);
  if (options.times_temperature_squared) divergence = fmt::format("{:g}^2 ", options.temperature) + divergence;
  const double share = options.teacher_share;
  const auto loss = options.minifinetuning ? fmt::format("(1 - s) cross-entropy + s {}, s of each token such that its label, in s P + (1 - s) label, leads the token that was likeliest by {:g}, or where it is that itself gains {:g} (minifinetuning)", divergence, *options.minifinetuning, *options.minifinetuning)
                    : share == 1       ? divergence
                                       : fmt::format("{:g} cross-entropy + {:g} {}", 1 - share, share, divergence);
  const auto entries = !teacher.cached()          ? std::string("of all tokens, beside the student")
                       : teacher.entries == "top" ? fmt::format("of its {} likeliest tokens and the rest {}, from the store", teacher.num_entries, teacher.rest_is_labels() ? "as the label's" : "as one outcome")
                                                  : fmt::format("as counts of {} draws, from the store", teacher.num_entries);
  const auto where = options.teaches_all() ? "mean over supervised tokens, of the divergence over all tokens, prompts' too" : "mean over supervised tokens";
  const auto on_policy = options.on_policy_share == 0
                             ? std::string()
                             : fmt::format("; on policy: the student answers {:g} % of a step's rows itself, {} steps' at once, at temperature {:g}: there without cross-entropy",
                                           100 * options.on_policy_share, options.on_policy_every, options.on_policy_temperature);
  const bool matches = options.matches_hidden_states();
  const auto matched = matches ? fmt::format("{:g} |W h - t|^2 / |t|^2 + ", options.hidden_states_weight) : "";
  const auto states = matches ? "; h and t: the states of student and teacher after layers that belong together, W a learnt projection where their widths differ; mean over these layers and the divergence's tokens" : "";
  return fmt::format("{}{}; P the teacher's distribution {}, Q the student's, both softmax(logits{}); {}{}{}", matched, loss, entries,
                     options.temperature == 1 ? "" : fmt::format(" / {:g}", options.temperature), where, states, on_policy);
}

ObjectiveLoss objective_loss(const at::Tensor& hidden_MC, const HeadPieces& head, std::span<const int32_t> labels_M, std::span<const float> weights_M,
                             const Objective& objective, const TeacherSignals* teacher, const ObjectiveLossOptions& options) {
  if (teacher && teacher->by_spans) return span_loss(hidden_MC, head, labels_M, weights_M, objective, *teacher, options);
  const auto shares = teacher && objective.minifinetuning ? minifinetuning_shares(teacher->hidden_MC, *teacher->head, labels_M, *objective.minifinetuning, options.buffer_bytes) : std::vector<float>();
  const auto weight_of = [&](size_t m) { return weights_M.empty() ? 1.0f : weights_M[m]; };
  // Shares of tokens are part of their weights.
  const double share = !teacher ? 0 : objective.teacher_share, of_labels = shares.empty() ? 1 - share : 1;
  std::vector<float> label_weights(weights_M.begin(), weights_M.end()), teacher_weights = label_weights;
  if (!shares.empty()) {
    label_weights.resize(shares.size()), teacher_weights.resize(shares.size());
    for (size_t m = 0; m < shares.size(); ++m) label_weights[m] = (1 - shares[m]) * weight_of(m), teacher_weights[m] = shares[m] * weight_of(m);
  }
  const Labelled labelled(hidden_MC, labels_M, label_weights);
  CrossEntropyOptions entropy_options;
  entropy_options.want_gradient = options.want_gradient && of_labels > 0;
  entropy_options.gradient_scale = options.gradient_scale * of_labels;
  entropy_options.buffer_bytes = options.buffer_bytes;
  ObjectiveLoss loss;
  if (!labelled.labels.empty()) {
    auto entropy = linear_cross_entropy(labelled.hidden, head, labelled.labels, labelled.weights, entropy_options);
    loss.weighted_loss = of_labels * entropy.weighted_loss;
    loss.weighted_cross_entropy = shares.empty() ? entropy.weighted_loss : weighted_sum(entropy.losses_M, labelled.rows, weights_M);
    loss.cross_entropies = std::move(entropy.losses_M);
    loss.correct = std::move(entropy.correct_M);
    loss.gradient_MC = labelled.put_back(entropy.gradient_MC, hidden_MC);
  }
  if (share == 0) return loss;
  const double divergence_scale = options.divergence_scale.value_or(options.gradient_scale);
  const auto divergence = linear_kl(hidden_MC, teacher->student_head ? *teacher->student_head : head, teacher->view(), teacher_weights, kl_options(objective, divergence_scale, options));
  loss.weighted_divergence = shares.empty() ? divergence.weighted_loss : weighted_sum(divergence.losses_M, {}, weights_M);
  loss.weighted_loss += share * divergence.weighted_loss * (divergence_scale / options.gradient_scale);
  if (options.want_gradient) loss.gradient_MC = loss.gradient_MC.defined() ? loss.gradient_MC.add(divergence.gradient_MC) : divergence.gradient_MC;
  return loss;
}

}  // namespace graft
