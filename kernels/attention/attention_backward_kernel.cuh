// Two kernels that recompute the shares: one goes through keys for the gradient of queries, one through queries for those of keys and values (all query
// heads of a group, all documents that see a shared prefix). Every sum has one order: no atomics, the same bits in every run.
//
//   p = exp2(score - log_sum); ds = p * (gradient v^T - delta), delta = rowsum(out * gradient)
//   dq = scale * ds k;  dk = scale * ds^T q;  dv = p^T gradient
#pragma once
#include "kernels/attention/attention_scores.cuh"
#include "kernels/cuda/reduce.cuh"

namespace graft::cuda {
namespace {

template <typename Shape>
struct QueryMemory {
  Tile<typename Shape::Element, Shape::kRows, Shape::kHead> queries;   // later the results
  Tile<typename Shape::Element, Shape::kRows, Shape::kValue> gradients;
  Tile<typename Shape::Element, Shape::kBackwardKeys, Shape::kHead> keys;
  Tile<typename Shape::Element, Shape::kBackwardKeys, Shape::kValue> values;
};

template <typename Shape>
struct KeyMemory {
  Tile<typename Shape::Element, Shape::kRows, Shape::kHead> keys;   // later the results
  Tile<typename Shape::Element, Shape::kRows, Shape::kValue> values;
  Tile<typename Shape::Element, Shape::kQueries, Shape::kHead> queries;
  Tile<typename Shape::Element, Shape::kQueries, Shape::kValue> gradients;
  SharedArray<float, Shape::kQueries> log_sums, deltas;
};

template <typename Shape>
GRAFT_KERNEL(Shape::kThreads) attention_query_gradient(const AttentionBackward arguments) {
  using Element = typename Shape::Element;
  constexpr int kKeys = Shape::kBackwardKeys, kThreads = Shape::kThreads, kParts = kKeys / 8, kHeadParts = Shape::kHead / 8;
  auto& memory = GRAFT_SHARED(QueryMemory<Shape>);
  const auto& problem = arguments.problem;
  const int head = static_cast<int>(block_in_grid() % problem.num_heads), kv_head = head / (problem.num_heads / problem.num_kv_heads);
  const AttentionTile tile = load(arguments.query_tiles + block_in_grid() / problem.num_heads);
  const Scores scores(problem, head, tile.document_begin, tile.before);
  const int first_query = tile.before + tile.first - tile.document_begin, end = first_query + tile.count;
  const int row = thread_in_block() / kWarp * 16, lane = thread_in_block() % kWarp;
  const int64_t of_head = int64_t(head) * problem.num_tokens + tile.first;
  const auto token_of_query = [&](int r) { return r < tile.count ? int64_t(tile.first) + r : -1; };
  copy_rows<kThreads>(memory.queries, problem.queries, head, problem.head_size, token_of_query);
  copy_rows<kThreads>(memory.gradients, arguments.gradient, head, problem.value_size, token_of_query);
  copy_commit();

  // Of this lane's two rows.
  float log_sum[2] = {0, 0}, delta[2] = {0, 0};
  for (int r = 0; r < 16 && row + r < tile.count; ++r) {
    const int64_t token = tile.first + row + r;
    const auto* out = static_cast<const Element*>(arguments.out.data) + token * arguments.out.token_stride + head * arguments.out.head_stride;
    const auto* gradient = static_cast<const Element*>(arguments.gradient.data) + token * arguments.gradient.token_stride + head * arguments.gradient.head_stride;
    float sum = 0;
    for (int c = lane; c < problem.value_size; c += kWarp) sum += to_float(load(out + c)) * to_float(load(gradient + c));
    sum = warp_sum(sum);
    if (lane == 0) store(arguments.delta_HN + of_head + row + r, sum);
    if (r % 8 == lane_group()) {
      delta[r / 8] = sum;
      log_sum[r / 8] = load(arguments.log_sums_HN + of_head + row + r);
    }
  }

  Sums query_gradient[kHeadParts];
  for (int part = 0; part < kHeadParts; ++part) set_zero(query_gradient[part]);
  for (int key = scores.first_key(first_query) / kKeys * kKeys; key < end; key += kKeys) {
    block_barrier();   // no warp needs the keys and values of before
    const auto token_of = [&](int r) { return key + r < end ? token_of_key(tile.document_begin, tile.before, key + r) : -1; };
    copy_rows<kThreads>(memory.keys, problem.keys, kv_head, problem.head_size, token_of);
    copy_rows<kThreads>(memory.values, problem.values, kv_head, problem.value_size, token_of);
    copy_commit();
    copy_wait<0>();
    block_barrier();
    Sums product[kParts], dp[kParts];
    multiply_rows<Shape::kHead>(product, memory.queries, row, memory.keys);
    multiply_rows<Shape::kValue>(dp, memory.gradients, row, memory.values);
    GRAFT_UNROLL
    for (int part = 0; part < kParts; ++part) {
      GRAFT_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int r = row + lane_group() + i / 2 * 8, query = first_query + r, column = key + part * 8 + lane_pair() + i % 2;
        float& value = product[part].values[i];
        const bool seen = r < tile.count && scores.sees(query, column);
        const float share = seen ? power_of_two(scores.of(value, query, column) - log_sum[i / 2]) : 0.0F;
        value = share * (dp[part].values[i] - delta[i / 2]) * scores.slope_of(value);
      }
    }
    add_weighted_rows(query_gradient, product, memory.keys);
  }
  warp_barrier();   // this warp alone read its rows
  write_sums(memory.queries, row, query_gradient, problem.scale, problem.scale);
  warp_barrier();
  store_rows(memory.queries, row, arguments.query_gradient, head, problem.head_size, int64_t(tile.first) + row, tile.count - row);
}

template <typename Shape>
GRAFT_KERNEL(Shape::kThreads, 1) attention_key_gradient(const AttentionBackward arguments) {
  constexpr int kQueries = Shape::kQueries, kThreads = Shape::kThreads, kParts = kQueries / 8;
  auto& memory = GRAFT_SHARED(KeyMemory<Shape>);
  const auto& problem = arguments.problem;
  const int kv_head = static_cast<int>(block_in_grid() % problem.num_kv_heads), group = problem.num_heads / problem.num_kv_heads;
  const AttentionTile tile = load(arguments.key_tiles + block_in_grid() / problem.num_kv_heads);
  const int row = thread_in_block() / kWarp * 16;
  const auto token_of_row = [&](int r) { return r < tile.count ? int64_t(tile.first) + r : -1; };
  copy_rows<kThreads>(memory.keys, problem.keys, kv_head, problem.head_size, token_of_row);
  copy_rows<kThreads>(memory.values, problem.values, kv_head, problem.value_size, token_of_row);
  copy_commit();

  Sums key_gradient[Shape::kHead / 8], value_gradient[Shape::kValue / 8];
  for (auto& sums : key_gradient) set_zero(sums);
  for (auto& sums : value_gradient) set_zero(sums);

  // The documents whose queries see these keys: their own first, then, of keys of the shared prefix, every later one. There they are the document's first
  // keys, before its own.
  const bool in_prefix = tile.document_begin == 0 && tile.first < problem.shared_prefix;
  for (int d = -1; d < (in_prefix ? arguments.num_documents : 0); ++d) {
    const int document_begin = d < 0 ? tile.document_begin : load(arguments.document_offsets + d), document_end = d < 0 ? tile.document_end : load(arguments.document_offsets + d + 1);
    if (d >= 0 && document_begin == 0) continue;
    const int before = d < 0 ? tile.before : problem.shared_prefix, first_key = d < 0 ? before + tile.first - document_begin : tile.first;
    const int num_keys = d < 0 ? tile.count : lesser(tile.count, problem.shared_prefix - tile.first);
    const int last_query = problem.window > 0 ? first_key + num_keys + problem.window - 2 : 0x7fffffff;
    for (int h = kv_head * group; h < (kv_head + 1) * group; ++h) {
      const Scores scores(problem, h, document_begin, before);
      for (int token = document_begin + greater(0, first_key - before); token < document_end && before + token - document_begin <= last_query; token += kQueries) {
        const int first_query = before + token - document_begin;
        block_barrier();   // no warp needs the queries of before
        const auto token_of = [&](int r) { return token + r < document_end ? int64_t(token) + r : -1; };
        copy_rows<kThreads>(memory.queries, problem.queries, h, problem.head_size, token_of);
        copy_rows<kThreads>(memory.gradients, arguments.gradient, h, problem.value_size, token_of);
        copy_commit();
        for (int r = thread_in_block(); r < kQueries; r += kThreads) {
          const bool valid = token + r < document_end;
          const int64_t of_query = int64_t(h) * problem.num_tokens + token + r;
          memory.log_sums.write(r, valid ? load(arguments.log_sums_HN + of_query) : 0.0F);
          memory.deltas.write(r, valid ? load(arguments.delta_HN + of_query) : 0.0F);
        }
        copy_wait<0>();
        block_barrier();
        Sums share[kParts], dp[kParts];   // rows are keys, columns queries
        multiply_rows<Shape::kHead>(share, memory.keys, row, memory.queries);
        multiply_rows<Shape::kValue>(dp, memory.values, row, memory.gradients);
        GRAFT_UNROLL
        for (int part = 0; part < kParts; ++part) {
          GRAFT_UNROLL
          for (int i = 0; i < 4; ++i) {
            const int r = row + lane_group() + i / 2 * 8, key = first_key + r, column = part * 8 + lane_pair() + i % 2, query = first_query + column;
            float& value = share[part].values[i];
            const bool seen = r < num_keys && token + column < document_end && scores.sees(query, key);
            const float slope = scores.slope_of(value);
            value = seen ? power_of_two(scores.of(value, query, key) - memory.log_sums.read(column)) : 0.0F;
            dp[part].values[i] = value * (dp[part].values[i] - memory.deltas.read(column)) * slope;
          }
        }
        add_weighted_rows(value_gradient, share, memory.gradients);
        add_weighted_rows(key_gradient, dp, memory.queries);
      }
    }
  }

  const int64_t first = int64_t(tile.first) + row;
  warp_barrier();   // this warp alone read its rows of keys and values
  write_sums(memory.keys, row, key_gradient, problem.scale, problem.scale);
  write_sums(memory.values, row, value_gradient, 1, 1);
  warp_barrier();
  store_rows(memory.keys, row, arguments.key_gradient, kv_head, problem.head_size, first, tile.count - row);
  store_rows(memory.values, row, arguments.value_gradient, kv_head, problem.value_size, first, tile.count - row);
}

}  // namespace

template <typename Element>
bool launch_kernels(const AttentionBackward& arguments, void* stream) {
  return for_attention_sizes<Element>(arguments.problem, [&](auto shape) {
    using Shape = decltype(shape);
    LAUNCH(attention_query_gradient<Shape>, int64_t(arguments.num_query_tiles) * arguments.problem.num_heads, Shape::kThreads, sizeof(QueryMemory<Shape>), stream, arguments);
    LAUNCH(attention_key_gradient<Shape>, int64_t(arguments.num_key_tiles) * arguments.problem.num_kv_heads, Shape::kThreads, sizeof(KeyMemory<Shape>), stream, arguments);
  });
}

}  // namespace graft::cuda
