// Online softmax over tiles of keys (Dao 2023, arXiv 2307.08691). A block has the queries of one tile and one head; each warp has 16 kStacks of them. Values
// travel while scores are computed, the next keys while values are multiplied.
#pragma once
#include "kernels/attention/attention_scores.cuh"

namespace graft::cuda {
namespace {

template <typename Shape>
struct ForwardMemory {
  Tile<typename Shape::Element, Shape::kQueryRows, Shape::kHead> queries;   // later the results
  Tile<typename Shape::Element, Shape::kKeys, Shape::kHead> keys;
  Tile<typename Shape::Element, Shape::kKeys, Shape::kValue> values;
};

// Of the four lanes that hold a row of sums.
GRAFT_DEVICE float row_maximum(float value) {
  for (int mask = 1; mask <= 2; mask *= 2) {
    const float other = shuffle_xor(value, mask);
    value = greater(value, other);
  }
  return value;
}

// Scores of 16 queries, over `unit`, to shares of the sum so far, after which results and sums count from the new maximum.
template <int kScoreParts, int kValueParts>
GRAFT_DEVICE void take_shares(Sums (&score)[kScoreParts], float unit, Sums (&out)[kValueParts], float (&maximum)[2], float (&sum)[2]) {
  GRAFT_UNROLL
  for (int half = 0; half < 2; ++half) {
    float larger = -infinity();
    GRAFT_UNROLL
    for (int part = 0; part < kScoreParts; ++part) larger = greater(larger, greater(score[part].values[2 * half], score[part].values[2 * half + 1]));
    larger = greater(row_maximum(larger), maximum[half]);
    const float offset = larger == -infinity() ? 0.0F : larger * unit;   // no key seen yet
    const float factor = power_of_two(fused_multiply_add(maximum[half], unit, -offset));
    maximum[half] = larger;
    sum[half] *= factor;
    GRAFT_UNROLL
    for (int part = 0; part < kValueParts; ++part) {
      out[part].values[2 * half] *= factor;
      out[part].values[2 * half + 1] *= factor;
    }
    GRAFT_UNROLL
    for (int part = 0; part < kScoreParts; ++part) {
      GRAFT_UNROLL
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        score[part].values[i] = power_of_two(fused_multiply_add(score[part].values[i], unit, -offset));
        sum[half] += score[part].values[i];
      }
    }
  }
}

// kCached: another kernel, because what it needs besides would cost this one registers, and so a block of the multiprocessor.
template <typename Shape, bool kCached>
GRAFT_KERNEL(Shape::kThreads) attention_forward(const AttentionForward arguments) {
  constexpr int kStacks = Shape::kStacks, kKeys = Shape::kKeys, kThreads = Shape::kThreads, kScoreParts = kKeys / 8, kValueParts = Shape::kValue / 8;
  auto& memory = GRAFT_SHARED(ForwardMemory<Shape>);
  const auto& problem = arguments.problem;
  const int head = static_cast<int>(block_in_grid() % problem.num_heads), kv_head = head / (problem.num_heads / problem.num_kv_heads);
  const AttentionTile tile = load(arguments.tiles + block_in_grid() / problem.num_heads);
  const Scores<Shape::kPlain> scores(problem, head, tile.document_begin, tile.before);
  const int first_query = tile.before + tile.first - tile.document_begin, end = first_query + tile.count;   // of the tile, in its document
  const int row = thread_in_block() / kWarp * 16 * kStacks, first_of_warp = first_query + row, last_of_warp = first_of_warp + 16 * kStacks - 1;

  const auto copy = [&](auto& to, HeadRows from, int columns, void* CachedRows::*cached, int first) {
    if constexpr (kCached) from.data = load(arguments.caches + tile.document).*cached;
    const int document_begin = kCached ? 0 : tile.document_begin;
    copy_rows<kThreads>(to, from, kv_head, columns, [&](int r) { return first + r < end ? token_of_key(document_begin, tile.before, first + r) : -1; });
    copy_commit();
  };
  const auto copy_keys = [&](int first) { copy(memory.keys, problem.keys, problem.head_size, &CachedRows::keys, first); };
  const auto copy_values = [&](int first) { copy(memory.values, problem.values, problem.value_size, &CachedRows::values, first); };

  Sums out[kStacks][kValueParts];
  float maximum[kStacks][2], sum[kStacks][2];   // of this lane's rows; the sum only over this lane's columns
  GRAFT_UNROLL
  for (int stack = 0; stack < kStacks; ++stack) {
    set_zero(out[stack]);
    for (int half = 0; half < 2; ++half) maximum[stack][half] = -infinity(), sum[stack][half] = 0;
  }

  const int first_key = scores.first_key(first_query) / kKeys * kKeys;
  copy_rows<kThreads>(memory.queries, problem.queries, head, problem.head_size, [&](int r) { return r < tile.count ? tile.first + r : -1; });
  copy_keys(first_key);
  for (int key = first_key; key < end; key += kKeys) {
    copy_wait<0>();
    block_barrier();   // keys are here, and no warp multiplies the values of before
    copy_values(key);

    const bool needed = first_of_warp < end && !scores.see_none(first_of_warp, last_of_warp, key, key + kKeys - 1);
    Sums score[kStacks][kScoreParts];
    if (needed) {
      GRAFT_UNROLL
      for (int stack = 0; stack < kStacks; ++stack) set_zero(score[stack]);
      add_products<Shape::kHead>(score, memory.queries, row, memory.keys);
      GRAFT_UNROLL
      for (int stack = 0; stack < kStacks; ++stack) {
        const int of_stack = first_of_warp + 16 * stack, query = of_stack + lane_group(), distance = key + lane_pair() - query;
        const auto distance_of = [&](int half, int column) { return distance + column - 8 * half; };
        scores.finish(score[stack], distance_of);
        if (!scores.see_all(of_stack, of_stack + 15, key, key + kKeys - 1)) {
          const auto query_of = [&](int half, int) { return query + 8 * half; };
          scores.hide(score[stack], -infinity(), distance_of, query_of, [&](int half, int) { return query + 8 * half < end; });
        }
        take_shares(score[stack], scores.unit(), out[stack], maximum[stack], sum[stack]);
      }
    }
    copy_wait<0>();
    block_barrier();   // values are here, and no warp needs the keys any more
    if (key + kKeys < end) copy_keys(key + kKeys);
    if (needed) add_weighted_rows(out, score, memory.values);
  }

  GRAFT_UNROLL
  for (int stack = 0; stack < kStacks; ++stack) {
    const int first = row + 16 * stack;
    float factor[2];
    GRAFT_UNROLL
    for (int half = 0; half < 2; ++half) {
      float total = row_sum(sum[stack][half]), largest = maximum[stack][half] * scores.unit();
      if (problem.sinks_H) {
        const float sink = load(problem.sinks_H + head) * kLog2E, before = largest;
        largest = sink > before ? sink : before;
        total = total * power_of_two(before - largest) + power_of_two(sink - largest);
        factor[half] = power_of_two(before - largest) / total;
      } else {
        factor[half] = 1 / total;
      }
      const int r = first + lane_group() + 8 * half;
      if (r < tile.count && lane_pair() == 0) store(arguments.log_sums_HN + int64_t(head) * problem.num_tokens + tile.first + r, largest + logarithm(total) * kLog2E);
    }
    // A warp stages its own rows where its own queries lay: they were read before the barriers of the last keys.
    write_sums(memory.queries, first, out[stack], factor[0], factor[1]);
  }
  warp_barrier();
  store_rows<16 * kStacks>(memory.queries, row, arguments.out, head, problem.value_size, int64_t(tile.first) + row, tile.count - row);
}

}  // namespace

template <typename Element>
bool launch_kernels(const AttentionForward& arguments, void* stream) {
  return for_attention_shapes<Element>(arguments.problem, arguments.caches != nullptr, [&](auto shape) {
    using Shape = decltype(shape);
    const int64_t blocks = int64_t(arguments.num_tiles) * arguments.problem.num_heads;
    if constexpr (!Shape::kPlain) {
      if (arguments.caches) {
        LAUNCH((attention_forward<Shape, true>), blocks, Shape::kThreads, sizeof(ForwardMemory<Shape>), stream, arguments);
        return;
      }
    }
    LAUNCH((attention_forward<Shape, false>), blocks, Shape::kThreads, sizeof(ForwardMemory<Shape>), stream, arguments);
  });
}

}  // namespace graft::cuda
