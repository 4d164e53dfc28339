// One outcome's part in a divergence (formulas in linear_kl.h), from log-probabilities of teacher and student.
#pragma once
#include "kernels/cuda/exponential_sum.cuh"
#include "kernels/linear_kl/kl_rows.cuh"

namespace graft::cuda {

// What is summed over outcomes: the loss, and the student's mean of g.
struct DivergenceSums {
  float loss = 0, mean = 0;
};

template <Divergence kDivergence>
struct DivergenceOf {
  float teacher_weight, teacher_part, slope;   // of a mixture

  explicit GRAFT_DEVICE DivergenceOf(const KlProblem& problem) : teacher_weight(problem.teacher_weight), teacher_part(problem.teacher_part), slope(problem.mixture_slope) {}

  // log M - log Q, log M - log P and (Q - P) / M, from the smaller of P / Q and Q / P: no overflow, and exact where the two are alike.
  struct OverMixture {
    float over_q, over_p, difference;
  };
  GRAFT_DEVICE OverMixture mixture(float log_p, float log_q) const {
    const float difference = log_p - log_q;
    const bool teacher_larger = difference > 0;
    const float smaller = exponential(teacher_larger ? -difference : difference);
    const float over_larger = (teacher_larger ? teacher_part : 1 - teacher_part) + (teacher_larger ? 1 - teacher_part : teacher_part) * smaller;
    const float log_larger = logarithm(over_larger), apart = (1 - smaller) / over_larger;
    return {teacher_larger ? log_larger + difference : log_larger, teacher_larger ? log_larger : log_larger - difference, teacher_larger ? -apart : apart};
  }
  // g of linear_kl.h.
  GRAFT_DEVICE float slope_of(const OverMixture& over) const { return (teacher_weight - 1) * over.over_q + slope * over.difference; }

  GRAFT_DEVICE void add(DivergenceSums& sums, float log_p, float log_q) const {
    const float p = exponential(log_p), q = exponential(log_q);
    if (kDivergence == Divergence::kForwardKl) {
      sums.loss += p > 0 ? p * (log_p - log_q) : 0.0F;
    } else if (kDivergence == Divergence::kReverseKl) {
      const float term = q > 0 ? q * (log_q - log_p) : 0.0F;
      sums.loss += term;
      sums.mean += term;
    } else {
      const OverMixture over = mixture(log_p, log_q);
      sums.loss += (q > 0 ? (teacher_weight - 1) * q * over.over_q : 0.0F) - (p > 0 ? teacher_weight * p * over.over_p : 0.0F);
      sums.mean += q > 0 ? q * slope_of(over) : 0.0F;
    }
  }

  // d loss / d (student's logit / T); of several tokens together where the probabilities are theirs together.
  GRAFT_DEVICE float gradient(float log_p, float log_q, float mean) const {
    const float q = exponential(log_q);
    if (kDivergence == Divergence::kForwardKl) return q - exponential(log_p);
    if (q == 0) return 0;
    if (kDivergence == Divergence::kReverseKl) return q * (log_q - log_p - mean);
    return q * (slope_of(mixture(log_p, log_q)) - mean);
  }
};

}  // namespace graft::cuda
