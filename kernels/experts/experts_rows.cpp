#include "kernels/experts/experts_rows.h"

#include <algorithm>

#include "kernels/common/fast_math.h"
#include "kernels/elementwise/rows_cpu.h"
#include "kernels/quantized/simd_clones.h"

namespace graft {
namespace {

GRAFT_SIMD_CLONES void clamped_swiglu(const float* gate, const float* up, int64_t size, float alpha, float limit, float* y) {
  for (int64_t i = 0; i < size; ++i) {
    const float g = std::min(gate[i], limit), u = std::max(-limit, std::min(up[i], limit));
    y[i] = g / (1.0f + fast_exp(-alpha * g)) * (u + 1.0f);
  }
}

// Beyond the limits a gradient is zero; at them it passes, as torch.clamp's does.
GRAFT_SIMD_CLONES void clamped_swiglu_backward(const float* gradient, const float* gate, const float* up, int64_t size, float alpha, float limit, float* dgate,
                                               float* dup) {
  for (int64_t i = 0; i < size; ++i) {
    const float g = std::min(gate[i], limit), u = std::max(-limit, std::min(up[i], limit));
    const float sigmoid = 1.0f / (1.0f + fast_exp(-alpha * g));
    const float through_gate = gradient[i] * (u + 1.0f) * sigmoid * (1.0f + alpha * g * (1.0f - sigmoid)), through_up = gradient[i] * g * sigmoid;
    dgate[i] = gate[i] <= limit ? through_gate : 0.0f;
    dup[i] = up[i] >= -limit && up[i] <= limit ? through_up : 0.0f;
  }
}

}  // namespace

void activation_row(const ExpertActivation& activation, const float* gate, const float* up, int64_t size, float* y) {
  if (activation.kind == ExpertActivation::Kind::kSwiGlu) return rows::swiglu(gate, up, size, y);
  clamped_swiglu(gate, up, size, static_cast<float>(activation.alpha), static_cast<float>(activation.limit), y);
}

void activation_row_backward(const ExpertActivation& activation, const float* gradient, const float* gate, const float* up, int64_t size, float* dgate, float* dup) {
  if (activation.kind == ExpertActivation::Kind::kSwiGlu) return rows::swiglu_backward(gradient, gate, up, size, dgate, dup);
  clamped_swiglu_backward(gradient, gate, up, size, static_cast<float>(activation.alpha), static_cast<float>(activation.limit), dgate, dup);
}

GRAFT_SIMD_CLONES void add_scaled_row(float* sum, const float* row, int64_t size, float factor) {
  for (int64_t i = 0; i < size; ++i) sum[i] += factor * row[i];
}

}  // namespace graft
