// Divergences of distillation, for host and device code.
#pragma once

namespace graft {

enum class Divergence { kForwardKl, kReverseKl, kMixture };

// Of kMixture: a and m of linear_kl.h.
struct Mixture {
  double teacher_weight = 0.5, teacher_part = 0.5;

  // What the gradient has of (Q - P) / M: none where weight and part are one.
  constexpr double slope() const { return (1 - teacher_part) * (teacher_weight - teacher_part); }
};
constexpr Mixture jensen_shannon(double b) { return {b, b}; }
constexpr Mixture skewed_forward_kl(double skew) { return {1, skew}; }
constexpr Mixture skewed_reverse_kl(double skew) { return {0, 1 - skew}; }

}  // namespace graft
