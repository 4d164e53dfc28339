// The whole of delta attention (formulas in kernels/delta_attention/delta_attention.h) in double precision, forward and backward, on inputs as they are stored.
#pragma once
#include "kernels/delta_attention/delta_attention.cuh"
#include "tests/emulator/delta_rule.h"

namespace graft::emulator {

struct DeltaOperator {
  std::vector<int32_t> offsets = {0};
  size_t key_heads = 1, heads = 1, key_size = 0, value_size = 0, taps = 4;
  bool tiled = false, channel_decay = false, silu_gate = true;
  double epsilon = 1e-3;
  Doubles qkv, a, b, z, dout, weights, rates, biases, norm;

  Doubles out, dqkv, da, db, dz;   // results

  size_t tokens() const { return static_cast<size_t>(offsets.back()); }
  size_t channels() const { return 2 * key_heads * key_size + heads * value_size; }
  size_t decays() const { return heads * (channel_decay ? key_size : 1); }

  void run() {
    out.assign(z.size(), 0);
    dz.assign(z.size(), 0);
    dqkv.assign(qkv.size(), 0);
    da.assign(a.size(), 0);
    db.assign(b.size(), 0);
    for (size_t d = 0; d + 1 < offsets.size(); ++d) run_document(static_cast<size_t>(offsets[d]), static_cast<size_t>(offsets[d + 1]));
  }

 private:
  static double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

  void run_document(size_t begin, size_t end) {
    const size_t T = end - begin, C = channels(), D = key_size, V = value_size, keys_at = key_heads * D, values_at = 2 * keys_at;
    Doubles sums(T * C), rows(T * C), inverse(T * 2 * key_heads), drows(T * C);   // before and behind silu; of the latter the gradient
    for (size_t t = 0; t < T; ++t) {
      for (size_t c = 0; c < C; ++c) {
        for (size_t tap = 0; tap < taps; ++tap) {
          if (t + tap + 1 >= taps) sums[t * C + c] += weights[c * taps + tap] * qkv[(begin + t + tap + 1 - taps) * C + c];
        }
        rows[t * C + c] = sums[t * C + c] * sigmoid(sums[t * C + c]);
      }
      for (size_t g = 0; g < 2 * key_heads; ++g) {
        double squares = 1e-6;
        for (size_t d = 0; d < D; ++d) squares += rows[t * C + g * D + d] * rows[t * C + g * D + d];
        inverse[t * 2 * key_heads + g] = 1 / std::sqrt(squares);
      }
    }
    for (size_t head = 0; head < heads; ++head) {
      const size_t g = tiled ? head % key_heads : head / (heads / key_heads), width = channel_decay ? D : 1;
      DeltaHead h{T, D, V, channel_decay, {}, {}, {}, {}, {}};
      for (size_t t = 0; t < T; ++t) {
        for (size_t d = 0; d < D; ++d) {
          h.queries.push_back(rows[t * C + g * D + d] * inverse[t * 2 * key_heads + g] / std::sqrt(D));
          h.keys.push_back(rows[t * C + keys_at + g * D + d] * inverse[t * 2 * key_heads + key_heads + g]);
        }
        for (size_t v = 0; v < V; ++v) h.values.push_back(rows[t * C + values_at + head * V + v]);
        h.betas.push_back(sigmoid(b[(begin + t) * heads + head]));
        for (size_t d = 0; d < width; ++d) h.logs.push_back(-rates[head] * std::log1p(std::exp(a[((begin + t) * heads + head) * width + d] + biases[head * width + d])));
      }
      Doubles slope(T * V);
      const auto output = token_by_token(h, slope).output;
      for (size_t t = 0; t < T; ++t) {
        const size_t at = ((begin + t) * heads + head) * V;
        double squares = 0, along = 0;
        for (size_t v = 0; v < V; ++v) squares += output[t * V + v] * output[t * V + v];
        const double factor = 1 / std::sqrt(squares / static_cast<double>(V) + epsilon);
        for (size_t v = 0; v < V; ++v) {
          const double share = sigmoid(z[at + v]), gate = silu_gate ? z[at + v] * share : share, normed = output[t * V + v] * factor * norm[v];
          out[at + v] = normed * gate;
          dz[at + v] = dout[at + v] * normed * (silu_gate ? share * (1 + z[at + v] * (1 - share)) : share * (1 - share));
          slope[t * V + v] = dout[at + v] * gate * norm[v];
          along += slope[t * V + v] * output[t * V + v] / static_cast<double>(V);
        }
        for (size_t v = 0; v < V; ++v) slope[t * V + v] = factor * (slope[t * V + v] - output[t * V + v] * factor * factor * along);
      }
      const auto gradients = token_by_token(h, slope);
      for (size_t t = 0; t < T; ++t) {
        for (size_t d = 0; d < D; ++d) {
          drows[t * C + g * D + d] += gradients.dqueries[t * D + d] / std::sqrt(D);
          drows[t * C + keys_at + g * D + d] += gradients.dkeys[t * D + d];
        }
        for (size_t v = 0; v < V; ++v) drows[t * C + values_at + head * V + v] = gradients.dvalues[t * V + v];
        db[(begin + t) * heads + head] = gradients.dbetas[t] * h.betas[t] * (1 - h.betas[t]);
        for (size_t d = 0; d < width; ++d) {
          const size_t at = ((begin + t) * heads + head) * width + d;
          da[at] = -rates[head] * sigmoid(a[at] + biases[head * width + d]) * gradients.dlogs[t * width + d];
        }
      }
    }
    for (size_t t = 0; t < T; ++t) {
      for (size_t g = 0; g < 2 * key_heads; ++g) {
        const double factor = inverse[t * 2 * key_heads + g];
        double along = 0;
        for (size_t c = g * D; c < (g + 1) * D; ++c) along += drows[t * C + c] * rows[t * C + c] * factor * factor;
        for (size_t c = g * D; c < (g + 1) * D; ++c) drows[t * C + c] = factor * (drows[t * C + c] - rows[t * C + c] * along);
      }
      for (size_t c = 0; c < C; ++c) {
        const double share = sigmoid(sums[t * C + c]), dsum = drows[t * C + c] * share * (1 + sums[t * C + c] * (1 - share));
        for (size_t tap = 0; tap < taps; ++tap) {
          if (t + tap + 1 >= taps) dqkv[(begin + t + tap + 1 - taps) * C + c] += weights[c * taps + tap] * dsum;
        }
      }
    }
  }
};

}  // namespace graft::emulator
