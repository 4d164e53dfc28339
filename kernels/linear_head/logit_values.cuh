// What kernels over rows of logits share. One block a row; bound by memory.
#pragma once
#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/exponential_sum.cuh"
#include "kernels/cuda/row_values.cuh"
#include "kernels/linear_head/logit_rows.cuh"

namespace graft::cuda {

constexpr int kLogitThreads = 256;

// Multiplies by the inverse: a division in a loop is a call, which costs registers.
struct SoftCap {
  float cap, inverse;   // 0: none

  GRAFT_DEVICE explicit SoftCap(float softcap) : cap(softcap), inverse(softcap > 0 ? 1 / softcap : 0.0F) {}
  // -infinity, which stands for no logit, stays.
  GRAFT_DEVICE float operator()(float logit) const { return cap > 0 && logit >= kLowestFloat ? cap * hyperbolic_tangent(logit * inverse) : logit; }
  // d capped / d logit
  GRAFT_DEVICE float slope(float capped) const {
    const float t = capped * inverse;
    return 1 - t * t;
  }
};

template <typename Logit>
GRAFT_DEVICE Logit* row_of(const LogitRows& logits, int64_t row) {
  return static_cast<Logit*>(logits.rows_BV) + row * logits.stride;
}

// f(first index, values) for this thread's parts of a row, past its end `otherwise`.
template <typename Logit, typename Function>
GRAFT_DEVICE void for_values(const Logit* row, int width, float otherwise, const Function& f) {
  constexpr int kPack = kWidestPack<Logit>;
  for (int first = thread_in_block() * kPack; first < width; first += kLogitThreads * kPack) {
    float values[kPack];
    load_values(values, row, first, width, otherwise);
    f(first, values);
  }
}

// f(first index, values) turns logits into gradients, which overwrite the row. All threads call it, after a barrier. Where gradients are narrower, a step's
// are written over logits of this step and those before, which all threads have read by then.
template <typename Gradient, typename Logit, typename Function>
GRAFT_DEVICE void replace_values(Logit* row, int width, const Function& f) {
  constexpr int kPack = kWidestPack<Logit>;
  for (int begin = 0; begin < width; begin += kLogitThreads * kPack) {
    const int first = begin + thread_in_block() * kPack;
    float values[kPack];
    if (first < width) load_values(values, row, first, width, 0);
    if (sizeof(Gradient) < sizeof(Logit)) block_barrier();
    if (first < width) {
      f(first, values);
      store_values(reinterpret_cast<Gradient*>(row), first, width, values);
    }
  }
}

template <typename LogitElement, typename GradientElement>
struct LogitTypes {
  using Logit = LogitElement;
  using Gradient = GradientElement;
};

// f(LogitTypes) for what the rows hold.
template <typename Function>
void visit_types(LogitType type, const Function& f) {
  switch (type) {
    case LogitType::kFloat32: return f(LogitTypes<float, float>());
    case LogitType::kFloat32ToBfloat16: return f(LogitTypes<float, Bfloat16>());
    case LogitType::kBfloat16: return f(LogitTypes<Bfloat16, Bfloat16>());
  }
}

}  // namespace graft::cuda
