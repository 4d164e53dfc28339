// The CPU path's rows of one key or value head: convolution and norm on the way in, their gradients on the way out; and the tasks that threads take.
#pragma once
#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "kernels/delta_attention/delta_attention.cuh"
#include "kernels/delta_attention/delta_attention.h"
#include "kernels/elementwise/rows_cpu.h"
#include "kernels/scratch/scratch.h"

namespace graft::delta_heads {

inline float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }
inline float softplus(float x) { return x > 20 ? x : std::log1p(std::exp(x)); }

// Channels `first` to `first + size` of one document: what the convolution reads and gives, and the gradient back.
struct Channels {
  Channels(Scratch& scratch, const DeltaAttentionOptions& options, int64_t tokens, int64_t first, int64_t size)
      : tokens(tokens), first(first), size(size), taps(options.convolution_CK.size(1)), weights(scratch.floats(taps * size)), sums(scratch.floats(tokens * size)),
        values(scratch.floats(tokens * size)) {
    const float* stored = options.convolution_CK.const_data_ptr<float>() + first * taps;
    for (int64_t tap = 0; tap < taps; ++tap) {
      for (int64_t c = 0; c < size; ++c) weights[tap * size + c] = stored[c * taps + tap];
    }
  }

  // tail: the document's earlier tokens [taps - 1, row], or null.
  template <typename Element>
  void convolve(Scratch& scratch, const Element* qkv, int64_t row, const float* tail) {
    const int64_t before = taps - 1;
    float* x = scratch.floats((before + tokens) * size);
    std::fill_n(x, before * size, 0.0f);
    for (int64_t t = 0; tail && t < before; ++t) std::copy_n(tail + t * row + first, size, x + t * size);
    for (int64_t t = 0; t < tokens; ++t) rows::to_float(qkv + t * row + first, size, x + (before + t) * size);
    std::fill_n(sums, tokens * size, 0.0f);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t tap = 0; tap < taps; ++tap) {
        const float *weight = weights + tap * size, *source = x + (t + tap) * size;
        for (int64_t c = 0; c < size; ++c) sums[t * size + c] += weight[c] * source[c];
      }
    }
    for (int64_t i = 0; i < tokens * size; ++i) values[i] = sums[i] * sigmoid(sums[i]);
  }

  // dvalues [T, size] becomes the gradient of the sums, then that of qkv's rows.
  template <typename Element>
  void convolve_backward(Scratch& scratch, float* dvalues, Element* dqkv, int64_t row) const {
    for (int64_t i = 0; i < tokens * size; ++i) {
      const float share = sigmoid(sums[i]);
      dvalues[i] *= share * (1 + sums[i] * (1 - share));
    }
    float* dx = scratch.floats(size);
    for (int64_t t = 0; t < tokens; ++t) {
      std::fill_n(dx, size, 0.0f);
      for (int64_t tap = 0; tap < taps; ++tap) {
        const int64_t later = t + taps - 1 - tap;   // the token that reads t through this tap
        if (later >= tokens) continue;
        const float *weight = weights + tap * size, *source = dvalues + later * size;
        for (int64_t c = 0; c < size; ++c) dx[c] += weight[c] * source[c];
      }
      rows::from_float(dx, size, dqkv + t * row + first);
    }
  }

  int64_t tokens, first, size, taps;
  float *weights, *sums, *values;   // [taps, size], [T, size] before and behind silu
};

inline float* zeros(Scratch& scratch, int64_t count) {
  float* buffer = scratch.floats(count);
  std::fill_n(buffer, count, 0.0f);
  return buffer;
}

// Rows of queries or keys, x / |x| * scale.
struct NormedRows {
  NormedRows(Scratch& scratch, const Channels& channels, float scale)
      : scale(scale), vectors(scratch.floats(channels.tokens * channels.size)), inverse(scratch.floats(channels.tokens)), channels(channels) {
    const int64_t size = channels.size;
    for (int64_t t = 0; t < channels.tokens; ++t) {
      const float* x = channels.values + t * size;
      inverse[t] = 1 / std::sqrt(rows::dot(x, x, size) + cuda::kDeltaNormEpsilon);
      for (int64_t c = 0; c < size; ++c) vectors[t * size + c] = x[c] * inverse[t] * scale;
    }
  }

  void backward(float* dvectors) const {   // of `vectors`, becomes that of the channels' values
    const int64_t size = channels.size;
    for (int64_t t = 0; t < channels.tokens; ++t) {
      const float* x = channels.values + t * size;
      float* dx = dvectors + t * size;
      const float factor = inverse[t] * scale, along = rows::dot(dx, x, size) * inverse[t] * inverse[t];
      for (int64_t c = 0; c < size; ++c) dx[c] = factor * (dx[c] - x[c] * along);
    }
  }

  float scale, *vectors, *inverse;
  const Channels& channels;
};

struct Task {
  int64_t document = 0, begin = 0, tokens = 0, key_head = 0;
};

inline std::vector<int64_t> value_heads(const DeltaAttentionOptions& options, int64_t key_head) {
  const int64_t count = options.num_value_heads / options.num_key_heads;
  std::vector<int64_t> heads;
  for (int64_t i = 0; i < count; ++i) heads.push_back(options.tiled_value_heads ? i * options.num_key_heads + key_head : key_head * count + i);
  return heads;
}

inline std::vector<Task> tasks_of(const DeltaAttentionOptions& options, std::span<const int32_t> offsets) {
  std::vector<Task> tasks;
  for (size_t d = 0; d + 1 < offsets.size(); ++d) {
    const int64_t tokens = offsets[d + 1] - offsets[d];
    for (int64_t head = 0; tokens > 0 && head < options.num_key_heads; ++head) tasks.push_back({static_cast<int64_t>(d), offsets[d], tokens, head});
  }
  std::stable_sort(tasks.begin(), tasks.end(), [](const Task& x, const Task& y) { return x.tokens > y.tokens; });
  return tasks;
}

}  // namespace graft::delta_heads
