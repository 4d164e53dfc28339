// Online softmax over tiles of keys (Dao 2023, arXiv 2307.08691). A block has the queries of one tile and one head; each warp has 16 of them. Values
// travel while scores are computed, the next keys while values are multiplied.
#pragma once
#include "kernels/attention/attention_scores.cuh"

namespace graft::cuda {
namespace {

template <typename Shape>
struct ForwardMemory {
  Tile<typename Shape::Element, Shape::kRows, Shape::kHead> queries;   // later the results
  Tile<typename Shape::Element, Shape::kKeys, Shape::kHead> keys;
  Tile<typename Shape::Element, Shape::kKeys, Shape::kValue> values;
};

// Of the four lanes that hold a row of sums.
GRAFT_DEVICE float row_maximum(float value) {
  for (int mask = 1; mask <= 2; mask *= 2) {
    const float other = shuffle_xor(value, mask);
    value = other > value ? other : value;
  }
  return value;
}

// kCached: another kernel, because what it needs besides would cost this one registers, and so a block of the multiprocessor.
template <typename Shape, bool kCached>
GRAFT_KERNEL(Shape::kThreads) attention_forward(const AttentionForward arguments) {
  constexpr int kRows = Shape::kRows, kKeys = Shape::kKeys, kThreads = Shape::kThreads, kScoreParts = kKeys / 8, kValueParts = Shape::kValue / 8;
  auto& memory = GRAFT_SHARED(ForwardMemory<Shape>);
  const auto& problem = arguments.problem;
  const int head = static_cast<int>(block_in_grid() % problem.num_heads), kv_head = head / (problem.num_heads / problem.num_kv_heads);
  const AttentionTile tile = load(arguments.tiles + block_in_grid() / problem.num_heads);
  const Scores scores(problem, head, tile.document_begin, tile.before);
  const int first_query = tile.before + tile.first - tile.document_begin, end = first_query + tile.count;   // of the tile, in its document
  const int row = thread_in_block() / kWarp * 16;                                                           // this warp's first
  const int my_rows[2] = {row + lane_group(), row + lane_group() + 8};

  const auto copy = [&](auto& to, HeadRows from, int columns, void* CachedRows::*cached, int first) {
    if constexpr (kCached) from.data = load(arguments.caches + tile.document).*cached;
    const int document_begin = kCached ? 0 : tile.document_begin;
    copy_rows<kThreads>(to, from, kv_head, columns, [&](int r) { return first + r < end ? token_of_key(document_begin, tile.before, first + r) : -1; });
    copy_commit();
  };
  const auto copy_keys = [&](int first) { copy(memory.keys, problem.keys, problem.head_size, &CachedRows::keys, first); };
  const auto copy_values = [&](int first) { copy(memory.values, problem.values, problem.value_size, &CachedRows::values, first); };

  Sums out[kValueParts];
  for (int part = 0; part < kValueParts; ++part) set_zero(out[part]);
  float maximum[2] = {-infinity(), -infinity()}, sum[2] = {0, 0};   // of this lane's two rows; the sum only over this lane's columns

  const int first_key = scores.first_key(first_query) / kKeys * kKeys;
  copy_rows<kThreads>(memory.queries, problem.queries, head, problem.head_size, [&](int r) { return r < tile.count ? int64_t(tile.first) + r : -1; });
  copy_keys(first_key);
  for (int key = first_key; key < end; key += kKeys) {
    copy_wait<0>();
    block_barrier();   // keys are here, and no warp multiplies the values of before
    copy_values(key);

    Sums score[kScoreParts];
    multiply_rows<Shape::kHead>(score, memory.queries, row, memory.keys);

    const bool all_seen = scores.see_all(first_query, end - 1, key, key + kKeys - 1) && tile.count == kRows;
    float tile_maximum[2] = {-infinity(), -infinity()};
    GRAFT_UNROLL
    for (int part = 0; part < kScoreParts; ++part) {
      GRAFT_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int r = my_rows[i / 2], query = first_query + r, column = key + part * 8 + lane_pair() + i % 2;
        const bool seen = all_seen || (r < tile.count && scores.sees(query, column));
        float& value = score[part].values[i];
        value = seen ? scores.of(value, query, column) : -infinity();
        tile_maximum[i / 2] = value > tile_maximum[i / 2] ? value : tile_maximum[i / 2];
      }
    }
    float offset[2];
    GRAFT_UNROLL
    for (int half = 0; half < 2; ++half) {
      const float larger = row_maximum(tile_maximum[half]), before = maximum[half];
      maximum[half] = larger > before ? larger : before;
      offset[half] = maximum[half] == -infinity() ? 0.0F : maximum[half];   // no key seen yet
      const float factor = power_of_two(before - offset[half]);
      sum[half] *= factor;
      GRAFT_UNROLL
      for (int part = 0; part < kValueParts; ++part) {
        out[part].values[2 * half] *= factor;
        out[part].values[2 * half + 1] *= factor;
      }
    }
    GRAFT_UNROLL
    for (int part = 0; part < kScoreParts; ++part) {
      GRAFT_UNROLL
      for (int i = 0; i < 4; ++i) {
        score[part].values[i] = power_of_two(score[part].values[i] - offset[i / 2]);
        sum[i / 2] += score[part].values[i];
      }
    }

    copy_wait<0>();
    block_barrier();   // values are here, and no warp needs the keys any more
    if (key + kKeys < end) copy_keys(key + kKeys);
    add_weighted_rows(out, score, memory.values);
  }

  float factor[2];
  GRAFT_UNROLL
  for (int half = 0; half < 2; ++half) {
    float total = row_sum(sum[half]), largest = maximum[half];
    if (problem.sinks_H) {
      const float sink = load(problem.sinks_H + head) * kLog2E, before = largest;
      largest = sink > before ? sink : before;
      total = total * power_of_two(before - largest) + power_of_two(sink - largest);
      factor[half] = power_of_two(before - largest) / total;
    } else {
      factor[half] = 1 / total;
    }
    const int r = my_rows[half];
    if (r < tile.count && lane_pair() == 0) store(arguments.log_sums_HN + int64_t(head) * problem.num_tokens + tile.first + r, largest + logarithm(total) * kLog2E);
  }
  // A warp stages its own rows where its own queries lay: they were read before the barriers of the last keys.
  write_sums(memory.queries, row, out, factor[0], factor[1]);
  warp_barrier();
  store_rows(memory.queries, row, arguments.out, head, problem.value_size, int64_t(tile.first) + row, tile.count - row);
}

}  // namespace

template <typename Element>
bool launch_kernels(const AttentionForward& arguments, void* stream) {
  return for_attention_sizes<Element>(arguments.problem, [&](auto shape) {
    using Shape = decltype(shape);
    const int64_t blocks = int64_t(arguments.num_tiles) * arguments.problem.num_heads;
    if (arguments.caches) LAUNCH((attention_forward<Shape, true>), blocks, Shape::kThreads, sizeof(ForwardMemory<Shape>), stream, arguments);
    else LAUNCH((attention_forward<Shape, false>), blocks, Shape::kThreads, sizeof(ForwardMemory<Shape>), stream, arguments);
  });
}

}  // namespace graft::cuda
