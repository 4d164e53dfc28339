// The gated delta rule of one value head in double precision: token after token, and in chunks as the kernels compute it (delta_chunk.cuh).
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

namespace graft::emulator {

using Doubles = std::vector<double>;

struct DeltaHead {
  size_t tokens = 0, key_size = 0, value_size = 0;
  bool channel_decay = false;
  Doubles queries, keys, values, betas, logs;   // [T, D], [T, D], [T, V], [T], [T] or [T, D]: logarithms of the decays
  double log(size_t t, size_t d) const { return channel_decay ? logs[t * key_size + d] : logs[t]; }
};

// What is read out [T, V], and gradients of the sum of it times `slope`.
struct DeltaResults {
  Doubles output, dqueries, dkeys, dvalues, dbetas, dlogs;
  explicit DeltaResults(const DeltaHead& h)
      : output(h.values.size()), dqueries(h.queries.size()), dkeys(h.keys.size()), dvalues(h.values.size()), dbetas(h.betas.size()), dlogs(h.logs.size()) {}
  void add_log(const DeltaHead& h, size_t t, size_t d, double value) { dlogs[h.channel_decay ? t * h.key_size + d : t] += value; }
};

// S <- decay * S;  S <- S + k (beta * (v - S^T k))^T;  o = S^T q, and back.
inline DeltaResults token_by_token(const DeltaHead& h, const Doubles& slope) {
  const size_t D = h.key_size, V = h.value_size;
  DeltaResults r(h);
  std::vector<Doubles> decayed, after, misses;
  Doubles state(D * V);
  for (size_t t = 0; t < h.tokens; ++t) {
    const double *q = &h.queries[t * D], *k = &h.keys[t * D];
    Doubles miss(h.values.begin() + static_cast<long>(t * V), h.values.begin() + static_cast<long>((t + 1) * V));
    for (size_t d = 0; d < D; ++d) {
      for (size_t v = 0; v < V; ++v) miss[v] -= k[d] * (state[d * V + v] *= std::exp(h.log(t, d)));
    }
    decayed.push_back(state);
    for (size_t d = 0; d < D; ++d) {
      for (size_t v = 0; v < V; ++v) r.output[t * V + v] += q[d] * (state[d * V + v] += k[d] * h.betas[t] * miss[v]);
    }
    after.push_back(state);
    misses.push_back(miss);
  }
  Doubles dstate(D * V);
  for (size_t t = h.tokens; t-- > 0;) {
    const double *q = &h.queries[t * D], *k = &h.keys[t * D], *dout = &slope[t * V], beta = h.betas[t];
    Doubles dwritten(V);
    for (size_t d = 0; d < D; ++d) {
      for (size_t v = 0; v < V; ++v) {
        r.dqueries[t * D + d] += after[t][d * V + v] * dout[v];
        double& ds = dstate[d * V + v];
        ds += q[d] * dout[v];
        r.dkeys[t * D + d] += ds * beta * misses[t][v];
        dwritten[v] += k[d] * ds;
      }
    }
    for (size_t v = 0; v < V; ++v) {
      r.dbetas[t] += dwritten[v] * misses[t][v];
      r.dvalues[t * V + v] = beta * dwritten[v];
    }
    for (size_t d = 0; d < D; ++d) {
      for (size_t v = 0; v < V; ++v) {
        double& ds = dstate[d * V + v];
        r.dkeys[t * D + d] -= decayed[t][d * V + v] * beta * dwritten[v];
        ds -= k[d] * beta * dwritten[v];
        r.add_log(h, t, d, ds * decayed[t][d * V + v]);
        ds *= std::exp(h.log(t, d));
      }
    }
  }
  return r;
}

namespace detail {

// What a chunk [first, first + count) computes from its own tokens: logs G summed from its first token, A below the diagonal, P, T = (I + A)^-1.
struct Chunk {
  const DeltaHead& h;
  size_t first, count;
  Doubles G, A, P, T;
  Chunk(const DeltaHead& head, size_t begin, size_t tokens) : h(head), first(begin), count(tokens), G(count * h.key_size), A(count * count), P(count * count), T(count * count) {
    for (size_t t = 0; t < count; ++t) {
      for (size_t d = 0; d < h.key_size; ++d) G[t * h.key_size + d] = (t ? G[(t - 1) * h.key_size + d] : 0) + h.log(first + t, d);
    }
    for (size_t t = 0; t < count; ++t) {
      for (size_t s = 0; s <= t; ++s) {
        for (size_t d = 0; d < h.key_size; ++d) {
          P[t * count + s] += q(t, d) * k(s, d) * decay(t, s, d);
          if (s < t) A[t * count + s] += beta(t) * k(t, d) * k(s, d) * decay(t, s, d);
        }
      }
    }
    for (size_t j = 0; j < count; ++j) {
      for (size_t t = 0; t < count; ++t) {
        T[t * count + j] = t == j;
        for (size_t s = 0; s < t; ++s) T[t * count + j] -= A[t * count + s] * T[s * count + j];
      }
    }
  }
  double q(size_t t, size_t d) const { return h.queries[(first + t) * h.key_size + d]; }
  double k(size_t t, size_t d) const { return h.keys[(first + t) * h.key_size + d]; }
  double v(size_t t, size_t c) const { return h.values[(first + t) * h.value_size + c]; }
  double beta(size_t t) const { return h.betas[first + t]; }
  double from_begin(size_t t, size_t d) const { return std::exp(G[t * h.key_size + d]); }
  double to_end(size_t t, size_t d) const { return decay(count - 1, t, d); }
  double decay(size_t t, size_t s, size_t d) const { return std::exp(G[t * h.key_size + d] - G[s * h.key_size + d]); }

  // X = V - K+ S.  [count, V]
  Doubles misses(const Doubles& S) const {
    Doubles X(count * h.value_size);
    for (size_t t = 0; t < count; ++t) {
      for (size_t c = 0; c < h.value_size; ++c) {
        double& x = X[t * h.value_size + c] = v(t, c);
        for (size_t d = 0; d < h.key_size; ++d) x -= k(t, d) * from_begin(t, d) * S[d * h.value_size + c];
      }
    }
    return X;
  }
};

// sums(i, j) of left(i, k) right(k, j).
template <typename Left, typename Right>
Doubles product(size_t rows, size_t inner, size_t columns, const Left& left, const Right& right) {
  Doubles sums(rows * columns);
  for (size_t i = 0; i < rows; ++i) {
    for (size_t k = 0; k < inner; ++k) {
      for (size_t j = 0; j < columns; ++j) sums[i * columns + j] += left(i, k) * right(k, j);
    }
  }
  return sums;
}

}  // namespace detail

// The WY form. States and their gradients go from chunk to chunk by S' = B + decay S - M^T (N S): forward with B = K-^T T beta V, M = K-, N = W = T beta K+,
// back with B = Q+^T dO - W^T P^T dO, M = W, N = K-.
inline DeltaResults chunk_by_chunk(const DeltaHead& h, const Doubles& slope, size_t chunk_tokens) {
  const size_t D = h.key_size, V = h.value_size;
  DeltaResults r(h);
  std::vector<detail::Chunk> chunks;
  for (size_t first = 0; first < h.tokens; first += chunk_tokens) chunks.emplace_back(h, first, std::min(chunk_tokens, h.tokens - first));
  const auto at = [](const Doubles& x, size_t columns) { return [&x, columns](size_t i, size_t j) { return x[i * columns + j]; }; };
  const auto transposed = [](const Doubles& x, size_t columns) { return [&x, columns](size_t i, size_t j) { return x[j * columns + i]; }; };
  const auto w_of = [&](const detail::Chunk& c) {
    return detail::product(c.count, c.count, D, at(c.T, c.count), [&](size_t t, size_t d) { return c.beta(t) * c.k(t, d) * c.from_begin(t, d); });
  };
  const auto advance = [&](const detail::Chunk& c, const Doubles& B, const auto& M, const auto& N, const Doubles& S) {
    const auto read = detail::product(c.count, D, V, N, at(S, V));
    auto taken = detail::product(D, c.count, V, [&](size_t d, size_t t) { return M(t, d); }, at(read, V));
    for (size_t d = 0; d < D; ++d) {
      for (size_t v = 0; v < V; ++v) taken[d * V + v] = B[d * V + v] + c.from_begin(c.count - 1, d) * S[d * V + v] - taken[d * V + v];
    }
    return taken;
  };

  std::vector<Doubles> states(chunks.size()), dstates(chunks.size());   // before the chunk, and of that behind it
  Doubles S(D * V);
  for (size_t i = 0; i < chunks.size(); ++i) {
    const auto& c = chunks[i];
    const auto k_to_end = [&](size_t t, size_t d) { return c.k(t, d) * c.to_end(t, d); };
    states[i] = S;
    const auto W = w_of(c), U0 = detail::product(c.count, c.count, V, at(c.T, c.count), [&](size_t t, size_t v) { return c.beta(t) * c.v(t, v); });
    const auto B = detail::product(D, c.count, V, [&](size_t d, size_t t) { return k_to_end(t, d); }, at(U0, V));
    S = advance(c, B, k_to_end, at(W, D), S);
  }
  Doubles dS(D * V);
  for (size_t i = chunks.size(); i-- > 0;) {
    const auto& c = chunks[i];
    const auto k_to_end = [&](size_t t, size_t d) { return c.k(t, d) * c.to_end(t, d); };
    const auto dO = [&](size_t t, size_t v) { return slope[(c.first + t) * V + v]; };
    dstates[i] = dS;
    const auto W = w_of(c), dU0 = detail::product(c.count, c.count, V, transposed(c.P, c.count), dO);
    auto B = detail::product(D, c.count, V, [&](size_t d, size_t t) { return c.q(t, d) * c.from_begin(t, d); }, dO);
    const auto taken = detail::product(D, c.count, V, transposed(W, D), at(dU0, V));
    for (size_t j = 0; j < B.size(); ++j) B[j] -= taken[j];
    dS = advance(c, B, at(W, D), k_to_end, dS);
  }

  for (size_t i = 0; i < chunks.size(); ++i) {
    const auto& c = chunks[i];
    const size_t C = c.count;
    const auto dO = [&](size_t t, size_t v) { return slope[(c.first + t) * V + v]; };
    const auto k_to_end = [&](size_t t, size_t d) { return c.k(t, d) * c.to_end(t, d); };
    const auto X = c.misses(states[i]);
    const auto U = detail::product(C, C, V, at(c.T, C), [&](size_t t, size_t v) { return c.beta(t) * X[t * V + v]; });
    const auto of_state = detail::product(C, D, V, [&](size_t t, size_t d) { return c.q(t, d) * c.from_begin(t, d); }, at(states[i], V));
    const auto of_chunk = detail::product(C, C, V, at(c.P, C), at(U, V));
    auto dU = detail::product(C, C, V, transposed(c.P, C), dO);
    const auto through_state = detail::product(C, D, V, k_to_end, at(dstates[i], V));
    for (size_t j = 0; j < dU.size(); ++j) dU[j] += through_state[j];
    const auto Y = detail::product(C, C, V, transposed(c.T, C), at(dU, V));
    const auto q_plus = detail::product(C, V, D, dO, transposed(states[i], V)), y_states = detail::product(C, V, D, at(Y, V), transposed(states[i], V));
    const auto k_minus = detail::product(C, V, D, at(U, V), transposed(dstates[i], V));
    const auto dP = detail::product(C, V, C, dO, transposed(U, V)), yu = detail::product(C, V, C, at(Y, V), transposed(U, V));   // dA = -yu
    Doubles later(D);   // of sums of logs, from all tokens behind
    for (size_t d = 0; d < D; ++d) {
      for (size_t v = 0; v < V; ++v) later[d] += c.from_begin(C - 1, d) * states[i][d * V + v] * dstates[i][d * V + v];
      for (size_t t = 0; t < C; ++t) later[d] += k_to_end(t, d) * k_minus[t * D + d];
    }
    for (size_t t = C; t-- > 0;) {
      for (size_t v = 0; v < V; ++v) {
        r.output[(c.first + t) * V + v] = of_state[t * V + v] + of_chunk[t * V + v];
        r.dvalues[(c.first + t) * V + v] = c.beta(t) * Y[t * V + v];
        r.dbetas[c.first + t] += Y[t * V + v] * X[t * V + v];
      }
      for (size_t d = 0; d < D; ++d) {
        double dq = c.from_begin(t, d) * q_plus[t * D + d], of_row = 0, of_column = c.to_end(t, d) * k_minus[t * D + d];
        for (size_t s = 0; s <= t; ++s) {
          dq += dP[t * C + s] * c.decay(t, s, d) * c.k(s, d);
          if (s < t) of_row -= yu[t * C + s] * c.decay(t, s, d) * c.k(s, d);
        }
        for (size_t s = t; s < C; ++s) {
          of_column += dP[s * C + t] * c.decay(s, t, d) * c.q(s, d);
          if (s > t) of_column -= c.beta(s) * yu[s * C + t] * c.decay(s, t, d) * c.k(s, d);
        }
        r.dbetas[c.first + t] += c.k(t, d) * of_row;
        const double dk = c.beta(t) * (of_row - c.from_begin(t, d) * y_states[t * D + d]);   // where k comes with the decay up to its token
        r.dqueries[(c.first + t) * D + d] = dq;
        r.dkeys[(c.first + t) * D + d] = dk + of_column;
        later[d] += c.q(t, d) * dq + c.k(t, d) * (dk - of_column);
        r.add_log(h, c.first + t, d, later[d]);
      }
    }
  }
  return r;
}

}  // namespace graft::emulator
