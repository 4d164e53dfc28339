// The specification in plain ATen.
#include <cmath>
#include <limits>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "kernels/elementwise/typed_rows.h"
#include "kernels/linear_head/head_products.h"
#include "kernels/linear_kl/linear_kl_paths.h"
#include "kernels/linear_kl/sparse_targets.h"

namespace graft {
namespace {

using at::Tensor;

struct Terms {
  Tensor loss_B1, gradient_BO;   // the gradient of the student's logits over T
};

// x where the probability is not 0, else 0.
Tensor where_possible(const Tensor& probability, const Tensor& x) { return at::where(probability > 0, x, at::zeros({}, x.options())); }

// From log-probabilities of outcomes.
Terms terms_of(const Tensor& log_p_BO, const Tensor& log_q_BO, const KlOptions& options) {
  const auto p = log_p_BO.exp(), q = log_q_BO.exp();
  Tensor loss_B1, g;
  switch (options.divergence) {
    case Divergence::kForwardKl: return {where_possible(p, p * (log_p_BO - log_q_BO)).sum(1, true), q - p};
    case Divergence::kReverseKl:
      g = where_possible(q, log_q_BO - log_p_BO);
      loss_B1 = (q * g).sum(1, true);
      break;
    case Divergence::kMixture: {
      const auto [a, m] = options.mixture;
      const auto log_m = at::logaddexp(log_p_BO + std::log(m), log_q_BO + std::log1p(-m));
      const auto of_student = where_possible(q, (1 - a) * (log_q_BO - log_m));
      loss_B1 = (where_possible(p, a * p * (log_p_BO - log_m)) + q * of_student).sum(1, true);
      g = of_student + where_possible(q, options.mixture.slope() * ((log_q_BO - log_m).exp() - (log_p_BO - log_m).exp()));
      break;
    }
  }
  return {loss_B1, q * (g - (q * g).sum(1, true))};
}

// Over entries and the rest: the gradient of the rest is the rest's tokens' in proportion to their probabilities.
Terms sparse_terms(const Tensor& ids_BK, const Tensor& log_p_BK, const Tensor& log_tail_B1, const Tensor& logits_BV, const KlOptions& options) {
  const int64_t vocab = logits_BV.size(1);
  const auto none_B1 = at::full({logits_BV.size(0), 1}, kNoEntry, logits_BV.options());
  const auto places_BK = at::where(ids_BK < 0, at::full({}, vocab, ids_BK.options()), ids_BK);   // no entry: a token more, which has no logit
  const auto padded = at::cat({logits_BV, none_B1}, 1);
  const auto rest = padded.scatter(1, places_BK, kNoEntry);
  const auto log_sum_B1 = padded.logsumexp(1, true), log_rest_B1 = rest.logsumexp(1, true);
  const auto log_q = at::cat({padded.gather(1, places_BK), log_rest_B1}, 1) - log_sum_B1;
  auto [loss_B1, gradient] = terms_of(at::cat({log_p_BK, log_tail_B1}, 1), log_q, options);
  const int64_t entries = ids_BK.size(1);
  const auto share = at::where(at::isinf(log_rest_B1), at::zeros_like(rest), (rest - log_rest_B1).exp());
  const auto gradient_BV = (share * gradient.narrow(1, entries, 1)).scatter(1, places_BK, gradient.narrow(1, 0, entries)).narrow(1, 0, vocab);
  return {loss_B1, gradient_BV};
}

}  // namespace

KlResult linear_kl_reference(const Tensor& hidden_MC, const HeadPieces& head, const Teacher& teacher, std::span<const float> weights, const KlOptions& options) {
  const at::NoGradGuard no_gradient;
  const int64_t num_rows = hidden_MC.size(0), vocab = head.rows();
  const double temperature = options.temperature;
  const auto wide = hidden_MC.options().dtype(wide_type(hidden_MC.scalar_type()));
  const auto scales_M1 = row_scales(weights, num_rows, gradient_factor(options), hidden_MC).to(wide).unsqueeze(1);
  const auto losses_M1 = at::empty({num_rows, 1}, wide);
  Tensor ids_MK, log_p_MK, log_tail_M1;
  if (const auto* sparse = std::get_if<SparseTeacher>(&teacher)) {
    const auto targets = sparse_targets(*sparse, num_rows, vocab, options);
    ids_MK = tensor_of(sparse->ids_MK, hidden_MC).to(at::kLong).view({num_rows, targets.num_entries});
    log_p_MK = tensor_of(std::span<const double>(targets.log_probabilities_MK), hidden_MC).to(wide).view_as(ids_MK);
    log_tail_M1 = tensor_of(std::span<const double>(targets.log_tails_M), hidden_MC).to(wide).unsqueeze(1);
  }
  KlResult result;
  if (options.want_gradient) result.gradient_MC = at::empty_like(hidden_MC);
  const auto capped = [](Tensor logits, double softcap) { return softcap > 0 ? logits.div_(softcap).tanh_().mul_(softcap) : logits; };
  const int64_t block = rows_of_block(num_rows, 2 * vocab * static_cast<int64_t>(c10::elementSize(wide.dtype().toScalarType())), options.buffer_bytes);
  for (int64_t first = 0; first < num_rows; first += block) {
    const int64_t count = std::min(block, num_rows - first);
    const auto rows_of = [&](const Tensor& x) { return x.narrow(0, first, count); };
    const auto logits_of = [&](const Tensor& x_MC, const HeadPieces& of) {
      auto logits = at::empty({count, vocab}, wide);
      head_product(rows_of(x_MC), of, logits);
      return capped(logits, of.softcap());
    };
    const auto student = logits_of(hidden_MC, head), tempered = student / temperature;
    Terms terms;
    if (ids_MK.defined()) {
      terms = sparse_terms(rows_of(ids_MK), rows_of(log_p_MK), rows_of(log_tail_M1), tempered, options);
    } else {
      const auto* other = std::get_if<HiddenTeacher>(&teacher);
      const auto logits = other ? logits_of(other->hidden_MC, other->head) : rows_of(std::get<DenseTeacher>(teacher).logits_MV).to(wide);
      terms = terms_of((logits / temperature).log_softmax(1), tempered.log_softmax(1), options);
    }
    rows_of(losses_M1).copy_(terms.loss_B1 * loss_factor(options));
    if (!options.want_gradient) continue;
    auto gradient = terms.gradient_BO * rows_of(scales_M1);
    if (head.softcap() > 0) gradient.mul_(1 - (student / head.softcap()).square());
    rows_of(result.gradient_MC).copy_(head_product_backward(gradient, rows_of(hidden_MC), head));
  }
  result.losses_M = values_of<float>(losses_M1);
  result.weighted_loss = weighted_sum(losses_M1, weights);
  return result;
}

}  // namespace graft
