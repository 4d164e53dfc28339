#include "kernels/linear_kl/divergence_rows_cpu.h"

#include <cmath>

#include "kernels/common/fast_math.h"
#include "kernels/elementwise/lane_sum.h"
#include "kernels/elementwise/rows_cpu.h"

namespace graft::rows {
namespace {

// A probability of 0 must not meet an infinite logarithm: fast_exp gives 1e-38 for it, which this leaves without weight.
constexpr float kLeastLog = -1e4f;

GRAFT_SIMD_CLONES float exp_sum(const float* x, int64_t size, float scale, float offset) {
  return lane_sum(size, [&](int64_t i) { return fast_exp(scale * x[i] - offset); });
}

GRAFT_SIMD_CLONES DivergenceSums forward_kl(float* student, float* teacher, int64_t size, float scale, float log_student, float log_teacher) {
  const float loss = lane_sum(size, [&](int64_t i) {
    const float log_q = scale * student[i] - log_student, given = scale * teacher[i] - log_teacher, log_p = given > kLeastLog ? given : kLeastLog;
    const float p = fast_exp(log_p);
    student[i] = fast_exp(log_q) - p;
    return p * (log_p - log_q);
  });
  return {loss, 0};
}

GRAFT_SIMD_CLONES DivergenceSums reverse_kl(float* student, float* teacher, int64_t size, float scale, float log_student, float log_teacher) {
  const float loss = lane_sum(size, [&](int64_t i) {
    const float log_q = scale * student[i] - log_student, g = log_q - (scale * teacher[i] - log_teacher), q = fast_exp(log_q);
    student[i] = q;
    teacher[i] = g;
    return q * g;
  });
  return {loss, loss};
}

GRAFT_SIMD_CLONES DivergenceSums of_mixture(const Mixture& mixture, float* student, float* teacher, int64_t size, float scale, float log_student, float log_teacher) {
  const auto a = static_cast<float>(mixture.teacher_weight), m = static_cast<float>(mixture.teacher_part), slope = static_cast<float>(mixture.slope());
  const float loss = lane_sum(size, [&](int64_t i) {
    const float log_q = scale * student[i] - log_student, given = scale * teacher[i] - log_teacher, log_p = given > kLeastLog ? given : kLeastLog;
    // M over the larger of P and Q, from the smaller one over it: no overflow, and exact where the two are alike.
    const float difference = log_p - log_q, smaller = fast_exp(-std::fabs(difference)), q = fast_exp(log_q);
    const bool teacher_larger = difference > 0;
    const float of_larger = teacher_larger ? m : 1 - m, over_larger = of_larger + (1 - of_larger) * smaller;
    const float log_larger = fast_log(over_larger), apart = (1 - smaller) / over_larger;
    const float of_student = (a - 1) * (log_larger + (teacher_larger ? difference : 0.0f));
    student[i] = q;
    teacher[i] = of_student + slope * (teacher_larger ? -apart : apart);
    return q * of_student - a * fast_exp(log_p) * (log_larger - (teacher_larger ? 0.0f : difference));
  });
  return {loss, dot(student, teacher, size)};
}

GRAFT_SIMD_CLONES void weighted_backward(float* q, const float* g, int64_t size, float mean, float factor) {
  for (int64_t i = 0; i < size; ++i) q[i] *= (g[i] - mean) * factor;
}

}  // namespace

float log_sum_exp(const float* x, int64_t size, float scale) {
  const float largest = scale * maximum(x, size);
  return largest + std::log(exp_sum(x, size, scale, largest));
}

DivergenceSums divergence(Divergence kind, const Mixture& mixture, float* student, float* teacher, int64_t size, float scale, float log_student, float log_teacher) {
  switch (kind) {
    case Divergence::kForwardKl: return forward_kl(student, teacher, size, scale, log_student, log_teacher);
    case Divergence::kReverseKl: return reverse_kl(student, teacher, size, scale, log_student, log_teacher);
    case Divergence::kMixture: return of_mixture(mixture, student, teacher, size, scale, log_student, log_teacher);
  }
  __builtin_unreachable();
}

void divergence_backward(Divergence kind, float* q, const float* g, int64_t size, float mean, float factor) {
  if (kind == Divergence::kForwardKl) {
    scale(q, size, factor);
  } else {
    weighted_backward(q, g, size, mean, factor);
  }
}

}  // namespace graft::rows
