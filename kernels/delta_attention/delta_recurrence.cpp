#include "kernels/delta_attention/delta_recurrence.h"

#include <algorithm>

#include "kernels/quantized/simd_clones.h"

namespace graft::delta_recurrence {
namespace {

constexpr int64_t kLanes = kColumns / 2;
using Lanes = float __attribute__((vector_size(kLanes * sizeof(float)), may_alias));
using HalfLanes = float __attribute__((vector_size(kLanes / 2 * sizeof(float))));
using QuarterLanes = float __attribute__((vector_size(kLanes / 4 * sizeof(float))));

struct Columns {   // of one row of a state
  Lanes first, second;
};

GRAFT_INLINE_IN_CLONES Columns* rows_of(float* block) { return reinterpret_cast<Columns*>(block); }

GRAFT_INLINE_IN_CLONES float sum(const Lanes& x) {
  const HalfLanes half = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
  const QuarterLanes quarter = __builtin_shufflevector(half, half, 0, 1, 2, 3) + __builtin_shufflevector(half, half, 4, 5, 6, 7);
  return (quarter[0] + quarter[1]) + (quarter[2] + quarter[3]);
}

// Columns behind the last are zeros.
GRAFT_INLINE_IN_CLONES Columns read(const float* row, int64_t count) {
  alignas(64) float padded[kColumns] = {};
  for (int64_t i = 0; i < count; ++i) padded[i] = row[i];
  return *rows_of(padded);
}

GRAFT_INLINE_IN_CLONES void write(const Columns& columns, float* row, int64_t count) {
  alignas(64) float padded[kColumns];
  *rows_of(padded) = columns;
  for (int64_t i = 0; i < count; ++i) row[i] = padded[i];
}

GRAFT_INLINE_IN_CLONES float decay_of(const Head& head, int64_t token, int64_t row) {
  return head.channel_decay ? head.decays[token * head.key_size + row] : head.decays[token];
}

// S <- decay * S; returns v - S^T k.
GRAFT_INLINE_IN_CLONES Columns decay_and_miss(const Head& head, int64_t token, const Columns& value, Columns* state) {
  const float* key = head.keys + token * head.key_size;
  Columns miss = value;
  for (int64_t row = 0; row < head.key_size; ++row) {
    const float decay = decay_of(head, token, row);
    state[row].first *= decay;
    state[row].second *= decay;
    miss.first -= key[row] * state[row].first;
    miss.second -= key[row] * state[row].second;
  }
  return miss;
}

GRAFT_SIMD_CLONES void forward_block(const Head& head, int64_t first, int64_t count, float* block, float* output, float* kept) {
  auto* state = rows_of(block);
  for (int64_t token = 0; token < head.tokens; ++token) {
    if (kept && token % kChunk == 0) std::copy_n(block, head.block_floats(), kept + token / kChunk * head.block_floats());
    const float *key = head.keys + token * head.key_size, *query = head.queries + token * head.key_size;
    const auto miss = decay_and_miss(head, token, read(head.values + token * head.value_size + first, count), state);
    const Columns written = {miss.first * head.betas[token], miss.second * head.betas[token]};
    Columns read_out = {};
    for (int64_t row = 0; row < head.key_size; ++row) {
      state[row].first += key[row] * written.first;
      state[row].second += key[row] * written.second;
      read_out.first += query[row] * state[row].first;
      read_out.second += query[row] * state[row].second;
    }
    write(read_out, output + token * head.value_size + first, count);
  }
}

// One token, from the last to the first. before: the state that the token found; slope: of the state behind it, becomes that of `before`.
GRAFT_INLINE_IN_CLONES void backward_token(const Head& head, int64_t token, int64_t first, int64_t count, const Columns* before, const Columns& miss, const Columns& doutput,
                                           const Gradients& gradients, Columns* slope) {
  const int64_t size = head.key_size;
  const float *key = head.keys + token * size, *query = head.queries + token * size, beta = head.betas[token];
  float *dkey = gradients.keys + token * size, *dquery = gradients.queries + token * size;
  const Columns written = {miss.first * beta, miss.second * beta};
  Columns dwritten = {};
  for (int64_t row = 0; row < size; ++row) {
    const float decay = decay_of(head, token, row);
    const Lanes after_first = before[row].first * decay + key[row] * written.first, after_second = before[row].second * decay + key[row] * written.second;
    dquery[row] += sum(after_first * doutput.first + after_second * doutput.second);
    slope[row].first += query[row] * doutput.first;
    slope[row].second += query[row] * doutput.second;
    dkey[row] += sum(slope[row].first * written.first + slope[row].second * written.second);
    dwritten.first += key[row] * slope[row].first;
    dwritten.second += key[row] * slope[row].second;
  }
  gradients.betas[token] += sum(dwritten.first * miss.first + dwritten.second * miss.second);
  const Columns dvalue = {dwritten.first * beta, dwritten.second * beta};
  write(dvalue, gradients.values + token * head.value_size + first, count);
  Lanes decay_slope = {};
  for (int64_t row = 0; row < size; ++row) {
    const float decay = decay_of(head, token, row);
    const Lanes decayed_first = before[row].first * decay, decayed_second = before[row].second * decay;
    const Lanes dfirst = slope[row].first - key[row] * dvalue.first, dsecond = slope[row].second - key[row] * dvalue.second;
    dkey[row] -= sum(decayed_first * dvalue.first + decayed_second * dvalue.second);
    const Lanes of_row = dfirst * decayed_first + dsecond * decayed_second;
    if (head.channel_decay) gradients.log_decays[token * size + row] += sum(of_row);
    else decay_slope += of_row;
    slope[row].first = dfirst * decay;
    slope[row].second = dsecond * decay;
  }
  if (!head.channel_decay) gradients.log_decays[token] += sum(decay_slope);
}

GRAFT_SIMD_CLONES void backward_block(const Head& head, int64_t first, int64_t count, const float* kept, const float* doutput, const Gradients& gradients, float* scratch) {
  const int64_t block_floats = head.block_floats();
  float* states = scratch;   // that the chunk's tokens found
  auto* slope = rows_of(scratch + kChunk * block_floats);
  auto* state = rows_of(scratch + (kChunk + 1) * block_floats);
  std::fill_n(scratch + kChunk * block_floats, block_floats, 0.0f);
  Columns misses[kChunk];
  for (int64_t chunk = (head.tokens - 1) / kChunk; chunk >= 0; --chunk) {
    const int64_t begin = chunk * kChunk, end = std::min(begin + kChunk, head.tokens);
    std::copy_n(kept + chunk * block_floats, block_floats, scratch + (kChunk + 1) * block_floats);
    for (int64_t token = begin; token < end; ++token) {
      std::copy_n(scratch + (kChunk + 1) * block_floats, block_floats, states + (token - begin) * block_floats);
      auto& miss = misses[token - begin];
      miss = decay_and_miss(head, token, read(head.values + token * head.value_size + first, count), state);
      const float *key = head.keys + token * head.key_size, beta = head.betas[token];
      for (int64_t row = 0; row < head.key_size; ++row) {
        state[row].first += key[row] * (miss.first * beta);
        state[row].second += key[row] * (miss.second * beta);
      }
    }
    for (int64_t token = end - 1; token >= begin; --token) {
      backward_token(head, token, first, count, rows_of(states + (token - begin) * block_floats), misses[token - begin],
                     read(doutput + token * head.value_size + first, count), gradients, slope);
    }
  }
}

}  // namespace

void forward(const Head& head, float* state, float* output, float* kept, float* block) {
  const int64_t kept_of_block = head.kept_floats() / head.blocks();
  for (int64_t first = 0; first < head.value_size; first += kColumns) {
    const int64_t count = std::min(kColumns, head.value_size - first);
    std::fill_n(block, head.block_floats(), 0.0f);
    for (int64_t row = 0; state && row < head.key_size; ++row) std::copy_n(state + row * head.value_size + first, count, block + row * kColumns);
    forward_block(head, first, count, block, output, kept ? kept + first / kColumns * kept_of_block : nullptr);
    for (int64_t row = 0; state && row < head.key_size; ++row) std::copy_n(block + row * kColumns, count, state + row * head.value_size + first);
  }
}

void backward(const Head& head, const float* kept, const float* doutput, const Gradients& gradients, float* scratch) {
  const int64_t kept_of_block = head.kept_floats() / head.blocks();
  for (int64_t first = 0; first < head.value_size; first += kColumns) {
    backward_block(head, first, std::min(kColumns, head.value_size - first), kept + first / kColumns * kept_of_block, doutput, gradients, scratch);
  }
}

}  // namespace graft::delta_recurrence
