// One outcome's part in a divergence (formulas in linear_kl.h), from log-probabilities of teacher and student.
#pragma once
#include "kernels/cuda/exponential_sum.cuh"
#include "kernels/linear_kl/divergence.h"

namespace graft::cuda {

// What is summed over outcomes: the loss, and the student's mean of g.
struct DivergenceSums {
  float loss = 0, mean = 0;
};

template <Divergence kDivergence>
struct DivergenceOf {
  float weight;   // Jensen-Shannon's b

  // log M - log Q and log M - log P, from the smaller of P / Q and Q / P: no overflow, and exact where the two are alike.
  GRAFT_DEVICE void mixture(float log_p, float log_q, float& over_q, float& over_p) const {
    const float difference = log_p - log_q;
    const bool teacher_larger = difference > 0;
    const float log_larger = logarithm((teacher_larger ? weight : 1 - weight) + (teacher_larger ? 1 - weight : weight) * exponential(teacher_larger ? -difference : difference));
    over_q = teacher_larger ? log_larger + difference : log_larger;
    over_p = teacher_larger ? log_larger : log_larger - difference;
  }

  GRAFT_DEVICE void add(DivergenceSums& sums, float log_p, float log_q) const {
    const float p = exponential(log_p), q = exponential(log_q);
    if (kDivergence == Divergence::kForwardKl) {
      sums.loss += p > 0 ? p * (log_p - log_q) : 0.0F;
    } else if (kDivergence == Divergence::kReverseKl) {
      const float term = q > 0 ? q * (log_q - log_p) : 0.0F;
      sums.loss += term;
      sums.mean += term;
    } else {
      float over_q, over_p;
      mixture(log_p, log_q, over_q, over_p);
      const float student = q > 0 ? (weight - 1) * q * over_q : 0.0F;
      sums.loss += student - (p > 0 ? weight * p * over_p : 0.0F);
      sums.mean += student;
    }
  }

  // d loss / d (student's logit / T); of several tokens together where the probabilities are theirs together.
  GRAFT_DEVICE float gradient(float log_p, float log_q, float mean) const {
    const float q = exponential(log_q);
    if (kDivergence == Divergence::kForwardKl) return q - exponential(log_p);
    if (q == 0) return 0;
    if (kDivergence == Divergence::kReverseKl) return q * (log_q - log_p - mean);
    float over_q, over_p;
    mixture(log_p, log_q, over_q, over_p);
    return q * ((weight - 1) * over_q - mean);
  }
};

}  // namespace graft::cuda
