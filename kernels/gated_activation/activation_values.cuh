// Activations of one gate and one up (formulas in gated_activation.h), and their slopes.
#pragma once
#include "kernels/cuda/activations.cuh"
#include "kernels/gated_activation/gated_activation.cuh"

namespace graft::cuda {

using ActivationKind = GatedActivationRows::Kind;

// Comparisons, not minima: NaN passes.
GRAFT_DEVICE float at_most(float value, float limit) { return value > limit ? limit : value; }
GRAFT_DEVICE float at_least(float value, float limit) { return value < limit ? limit : value; }

// gelu in its tanh form is x * sigmoid(c (x + d x^3)), c = 2 sqrt(2/pi).
constexpr float kGeluScale = 1.5957691216F, kGeluCubic = 0.044715F;
GRAFT_DEVICE float gelu_sigmoid(float x) { return sigmoid(kGeluScale * (x + kGeluCubic * x * x * x)); }

// y, and its slopes in gate and up (kGeluTanh has no up). `of` has alpha and limit, of kClampedSwiGlu.
struct Slopes {
  float gate, up;
};
template <ActivationKind kKind, typename Limits>
GRAFT_DEVICE float activated(const Limits& of, float gate, float up) {
  if constexpr (kKind == ActivationKind::kSwiGlu) return gate * sigmoid(gate) * up;
  if constexpr (kKind == ActivationKind::kGeluTanhGated) return gate * gelu_sigmoid(gate) * up;
  if constexpr (kKind == ActivationKind::kGeluTanh) return gate * gelu_sigmoid(gate);
  const float g = at_most(gate, of.limit), u = at_least(at_most(up, of.limit), -of.limit);
  return g * sigmoid(of.alpha * g) * (u + 1.0F);
}
template <ActivationKind kKind, typename Limits>
GRAFT_DEVICE Slopes slopes(const Limits& of, float gate, float up) {
  if constexpr (kKind == ActivationKind::kSwiGlu) {
    const float share = sigmoid(gate);
    return {up * share * (1.0F + gate * (1.0F - share)), gate * share};
  }
  if constexpr (kKind == ActivationKind::kGeluTanhGated || kKind == ActivationKind::kGeluTanh) {
    constexpr bool kGated = kKind == ActivationKind::kGeluTanhGated;
    const float share = gelu_sigmoid(gate);
    const float slope = share + gate * share * (1.0F - share) * kGeluScale * (1.0F + 3.0F * kGeluCubic * gate * gate);
    return {kGated ? slope * up : slope, gate * share};
  }
  // Beyond the limits a slope is zero; at them it is the one inside, as torch.clamp's.
  const float g = at_most(gate, of.limit), u = at_least(at_most(up, of.limit), -of.limit), share = sigmoid(of.alpha * g);
  const bool gate_moves = !(gate > of.limit), up_moves = !(up > of.limit) && !(up < -of.limit);
  return {gate_moves ? (u + 1.0F) * share * (1.0F + of.alpha * g * (1.0F - share)) : 0.0F, up_moves ? g * share : 0.0F};
}

}  // namespace graft::cuda
