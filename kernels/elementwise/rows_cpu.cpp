#include "kernels/elementwise/rows_cpu.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/common/fast_math.h"
#include "kernels/elementwise/lane_sum.h"
#include "kernels/quantized/round_to_bf16.h"
#include "kernels/quantized/simd_clones.h"
#include "kernels/quantized/small_floats.h"

namespace graft::rows {

void to_float(const float* source, int64_t size, float* destination) {
  if (source != destination) std::copy(source, source + size, destination);
}
GRAFT_SIMD_CLONES void to_float(const uint16_t* source, int64_t size, float* destination) {
  for (int64_t i = 0; i < size; ++i) destination[i] = bf16_to_float(source[i]);
}
void from_float(const float* source, int64_t size, float* destination) {
  if (source != destination) std::copy(source, source + size, destination);
}
void from_float(const float* source, int64_t size, uint16_t* destination) { round_to_bf16(source, size, destination); }

void from_float_in_place(float* row, int64_t size) {
  // A piece at a time through a buffer: what is written lies before what is still to be read.
  constexpr int64_t kPiece = 512;
  uint16_t piece[kPiece];
  for (int64_t first = 0; first < size; first += kPiece) {
    const int64_t count = std::min(kPiece, size - first);
    from_float(row + first, count, piece);
    std::memcpy(reinterpret_cast<char*>(row) + first * sizeof(uint16_t), piece, count * sizeof(uint16_t));
  }
}

GRAFT_SIMD_CLONES float rms_norm(const float* x, const float* weight, int64_t size, float epsilon, float* y) {
  const float squares = lane_sum(size, [&](int64_t i) { return x[i] * x[i]; });
  const float inverse_rms = 1.0f / std::sqrt(squares / static_cast<float>(size) + epsilon);
  for (int64_t i = 0; i < size; ++i) y[i] = x[i] * inverse_rms * weight[i];
  return inverse_rms;
}

GRAFT_SIMD_CLONES void rms_norm_backward(const float* gradient, const float* x, const float* weight, int64_t size, float inverse_rms,
                                         float* dx) {
  const float product = lane_sum(size, [&](int64_t i) { return gradient[i] * weight[i] * x[i]; });
  const float factor = product * inverse_rms * inverse_rms / static_cast<float>(size);
  for (int64_t i = 0; i < size; ++i) dx[i] = inverse_rms * (gradient[i] * weight[i] - x[i] * factor);
}

GRAFT_SIMD_CLONES void swiglu(const float* gate, const float* up, int64_t size, float* y) {
  for (int64_t i = 0; i < size; ++i) y[i] = gate[i] / (1.0f + fast_exp(-gate[i])) * up[i];
}

GRAFT_SIMD_CLONES void swiglu_backward(const float* gradient, const float* gate, const float* up, int64_t size, float* dgate, float* dup) {
  for (int64_t i = 0; i < size; ++i) {
    const float sigmoid = 1.0f / (1.0f + fast_exp(-gate[i]));
    const float silu = gate[i] * sigmoid, g = gradient[i];
    dgate[i] = g * up[i] * (sigmoid + silu * (1.0f - sigmoid));
    dup[i] = g * silu;
  }
}

namespace {
constexpr float kTwiceRootTwoOverPi = 1.5957691216f, kGeluCubic = 0.044715f;

GRAFT_INLINE_IN_CLONES float gelu_sigmoid(float x) { return 1.0f / (1.0f + fast_exp(-kTwiceRootTwoOverPi * (x + kGeluCubic * x * x * x))); }
GRAFT_INLINE_IN_CLONES float gelu_slope(float x, float sigmoid) {
  return sigmoid + x * sigmoid * (1.0f - sigmoid) * kTwiceRootTwoOverPi * (1.0f + 3.0f * kGeluCubic * x * x);
}
}  // namespace

GRAFT_SIMD_CLONES void gelu_tanh_gated(const float* gate, const float* up, int64_t size, float* y) {
  for (int64_t i = 0; i < size; ++i) y[i] = gate[i] * gelu_sigmoid(gate[i]) * up[i];
}

GRAFT_SIMD_CLONES void gelu_tanh_gated_backward(const float* gradient, const float* gate, const float* up, int64_t size, float* dgate, float* dup) {
  for (int64_t i = 0; i < size; ++i) {
    const float x = gate[i], sigmoid = gelu_sigmoid(x), g = gradient[i];
    dgate[i] = g * up[i] * gelu_slope(x, sigmoid);
    dup[i] = g * x * sigmoid;
  }
}

GRAFT_SIMD_CLONES void gelu_tanh(const float* x, int64_t size, float* y) {
  for (int64_t i = 0; i < size; ++i) y[i] = x[i] * gelu_sigmoid(x[i]);
}

GRAFT_SIMD_CLONES void gelu_tanh_backward(const float* gradient, const float* x, int64_t size, float* dx) {
  for (int64_t i = 0; i < size; ++i) dx[i] = gradient[i] * gelu_slope(x[i], gelu_sigmoid(x[i]));
}

GRAFT_SIMD_CLONES void rotate_neighbours(float* x, const float* cosine, const float* sine, int64_t size, bool inverse) {
  const float sign = inverse ? -1.0f : 1.0f;
  for (int64_t i = 0; i < size / 2; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1], s = sign * sine[i];
    x[2 * i] = a * cosine[i] - b * s;
    x[2 * i + 1] = b * cosine[i] + a * s;
  }
}

GRAFT_SIMD_CLONES void rotate(float* x, const float* cosine, const float* sine, int64_t size, bool inverse) {
  const int64_t half = size / 2;
  float* first = x;
  float* second = x + half;
  const float sign = inverse ? -1.0f : 1.0f;
  for (int64_t i = 0; i < half; ++i) {
    const float a = first[i], b = second[i], s = sign * sine[i];
    first[i] = a * cosine[i] - b * s;
    second[i] = b * cosine[i] + a * s;
  }
}

GRAFT_SIMD_CLONES float maximum(const float* x, int64_t size) {
  float lanes[kLanes];
  for (auto& lane : lanes) lane = -INFINITY;
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] = x[i + lane] > lanes[lane] ? x[i + lane] : lanes[lane];
  }
  float result = -INFINITY;
  for (; i < size; ++i) result = x[i] > result ? x[i] : result;
  for (const float lane : lanes) result = lane > result ? lane : result;
  return result;
}

GRAFT_SIMD_CLONES float dot(const float* x, const float* y, int64_t size) {
  return lane_sum(size, [&](int64_t i) { return x[i] * y[i]; });
}

GRAFT_SIMD_CLONES float sum(const float* x, int64_t size) {
  return lane_sum(size, [&](int64_t i) { return x[i]; });
}

GRAFT_SIMD_CLONES void scale(float* x, int64_t size, float factor) {
  for (int64_t i = 0; i < size; ++i) x[i] *= factor;
}

GRAFT_SIMD_CLONES void add(float* x, const float* y, int64_t size) {
  for (int64_t i = 0; i < size; ++i) x[i] += y[i];
}

GRAFT_SIMD_CLONES void add_constant(float* x, int64_t size, float constant) {
  for (int64_t i = 0; i < size; ++i) x[i] += constant;
}

GRAFT_SIMD_CLONES void add_ramp(float* x, int64_t size, float first, float step) {
  for (int64_t i = 0; i < size; ++i) x[i] += first + static_cast<float>(i) * step;
}

// libm's tanh: 1 - 2 / (1 + exp(2x)) would lose the digits of small scores.
void soft_cap(float* x, int64_t size, float scale, float cap) {
  for (int64_t i = 0; i < size; ++i) x[i] = cap * std::tanh(scale * x[i] / cap);
}

GRAFT_SIMD_CLONES void soft_cap_backward(float* gradient, const float* y, int64_t size, float cap) {
  for (int64_t i = 0; i < size; ++i) {
    const float t = y[i] / cap;
    gradient[i] *= 1.0f - t * t;
  }
}

GRAFT_SIMD_CLONES float exp_and_sum(float* x, int64_t size, float scale, float offset) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const float value = fast_exp(scale * x[i + lane] - offset);
      x[i + lane] = value;
      lanes[lane] += value;
    }
  }
  float sum = 0;
  for (; i < size; ++i) {
    x[i] = fast_exp(scale * x[i] - offset);
    sum += x[i];
  }
  for (const float lane : lanes) sum += lane;
  return sum;
}

GRAFT_SIMD_CLONES void softmax_backward(const float* p, float* dp, int64_t size, float delta, float scale) {
  for (int64_t i = 0; i < size; ++i) dp[i] = p[i] * (dp[i] - delta) * scale;
}

}  // namespace graft::rows
