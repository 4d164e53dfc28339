// Rows of a divergence on the CPU, vectorised as kernels/elementwise does. Formulas and b: linear_kl.h.
#pragma once
#include <cstdint>

#include "kernels/linear_kl/divergence.h"

namespace graft::rows {

// log(sum exp(scale * x)).
float log_sum_exp(const float* x, int64_t size, float scale);

// The loss of a row, and the student's mean of g.
struct DivergenceSums {
  float loss = 0, mean = 0;
};

// From logits times `scale` and their log_sum_exp. Writes Q over the student's, g over the teacher's; of forward KL Q - P and 0, so that its mean is 0 too.
DivergenceSums divergence(Divergence kind, const Mixture& mixture, float* student, float* teacher, int64_t size, float scale, float log_student, float log_teacher);
// q = q * (g - mean) * factor; of forward KL: q * factor.
void divergence_backward(Divergence kind, float* q, const float* g, int64_t size, float mean, float factor);

}  // namespace graft::rows
