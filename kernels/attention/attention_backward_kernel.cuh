// Two kernels that recompute the shares: one goes through keys for the gradient of queries, one through queries for those of keys and values (all query
// heads of a group, all documents that see a shared prefix). Every sum has one order: no atomics, the same bits in every run.
//
//   p = exp2(score - log_sum); ds = p * (gradient v^T - delta), delta = rowsum(out * gradient)
//   dq = scale * ds k;  dk = scale * ds^T q;  dv = p^T gradient
#pragma once
#include "kernels/attention/attention_scores.cuh"

namespace graft::cuda {
namespace {

// How many tiles of each kind a block has: with two the next one travels while one is multiplied.
template <typename Shape>
struct QueryMemory {
  using Element = typename Shape::Element;
  using Keys = Tile<Element, Shape::kBackwardKeys, Shape::kHead>;
  using Queries = Tile<Element, Shape::kQueryRows, Shape::kHead>;
  using Gradients = Tile<Element, Shape::kQueryRows, Shape::kValue>;
  using Values = Tile<Element, Shape::kBackwardKeys, Shape::kValue>;
  using Numbers = SharedArray<float, Shape::kQueryRows>;
  static constexpr int kBuffers = sizeof(Queries) + sizeof(Gradients) + 2 * sizeof(Numbers) + 2 * sizeof(Keys) + sizeof(Values) <= kLeastSharedBytes ? 2 : 1;

  Queries queries;   // later the results
  Gradients gradients;
  Numbers log_sums, deltas;
  Keys keys[kBuffers];
  Values values;
};

template <typename Shape>
struct KeyMemory {
  using Element = typename Shape::Element;
  struct Side {
    Tile<Element, Shape::kQueries, Shape::kHead> queries;
    Tile<Element, Shape::kQueries, Shape::kValue> gradients;
    SharedArray<float, Shape::kQueries> log_sums, deltas;
  };
  using Keys = Tile<Element, Shape::kKeyRows, Shape::kHead>;
  using Values = Tile<Element, Shape::kKeyRows, Shape::kValue>;
  static constexpr int kBuffers = sizeof(Keys) + sizeof(Values) + 2 * sizeof(Side) <= kLeastSharedBytes ? 2 : 1;

  Keys keys;   // later the results
  Values values;
  Side sides[kBuffers];
};

template <typename Shape>
GRAFT_KERNEL(Shape::kThreads, 1) attention_query_gradient(const AttentionBackward arguments) {
  using Element = typename Shape::Element;
  using Memory = QueryMemory<Shape>;
  constexpr int kStacks = Shape::kStacks, kKeys = Shape::kBackwardKeys, kThreads = Shape::kThreads, kParts = kKeys / 8, kHeadParts = Shape::kHead / 8, kPack = kWidestPack<Element>;
  auto& memory = GRAFT_SHARED(Memory);
  const auto& problem = arguments.problem;
  const int head = static_cast<int>(block_in_grid() % problem.num_heads), kv_head = head / (problem.num_heads / problem.num_kv_heads);
  const AttentionTile tile = load(arguments.query_tiles + block_in_grid() / problem.num_heads);
  const Scores<Shape::kPlain> scores(problem, head, tile.document_begin, tile.before);
  const int first_query = tile.before + tile.first - tile.document_begin, end = first_query + tile.count;
  const int row = thread_in_block() / kWarp * 16 * kStacks, first_of_warp = first_query + row, last_of_warp = first_of_warp + 16 * kStacks - 1;
  const auto token_of_query = [&](int r) { return r < tile.count ? tile.first + r : -1; };
  const auto copy = [&](auto& to, const HeadRows& from, int columns, int first) {
    copy_rows<kThreads>(to, from, kv_head, columns, [&](int r) { return first + r < end ? token_of_key(tile.document_begin, tile.before, first + r) : -1; });
    copy_commit();
  };
  const int first_key = scores.first_key(first_query) / kKeys * kKeys;
  copy_rows<kThreads>(memory.queries, problem.queries, head, problem.head_size, token_of_query);
  copy_rows<kThreads>(memory.gradients, arguments.gradient, head, problem.value_size, token_of_query);
  copy(memory.keys[0], problem.keys, problem.head_size, first_key);
  copy(memory.values, problem.values, problem.value_size, first_key);

  Sums query_gradient[kStacks][kHeadParts];
  GRAFT_UNROLL
  for (int stack = 0; stack < kStacks; ++stack) set_zero(query_gradient[stack]);
  // Of its rows a warp computes `delta` where it reads it.
  for (int r = row + lane_group(); r < row + 16 * kStacks; r += 8) {
    const bool valid = r < tile.count;
    const int64_t token = tile.first + (valid ? r : 0), of_head = int64_t(head) * problem.num_tokens + token;
    const auto* out = static_cast<const Element*>(arguments.out.data) + token * arguments.out.token_stride + head * arguments.out.head_stride;
    const auto* gradient = static_cast<const Element*>(arguments.gradient.data) + token * arguments.gradient.token_stride + head * arguments.gradient.head_stride;
    float products = 0;
    for (int c = lane_pair() / 2 * kPack; c < problem.value_size; c += 4 * kPack) {
      const auto a = load(reinterpret_cast<const Pack<Element, kPack>*>(out + c)), b = load(reinterpret_cast<const Pack<Element, kPack>*>(gradient + c));
      GRAFT_UNROLL
      for (int i = 0; i < kPack; ++i) products += to_float(a.values[i]) * to_float(b.values[i]);
    }
    products = row_sum(products);
    if (lane_pair() != 0) continue;
    memory.deltas.write(r, valid ? products : 0.0F);
    memory.log_sums.write(r, valid ? load(arguments.log_sums_HN + of_head) : 0.0F);
    if (valid) store(arguments.delta_HN + of_head, products);
  }

  int buffer = 0;
  for (int key = first_key; key < end; key += kKeys) {
    const bool more = key + kKeys < end, needed = first_of_warp < end && !scores.see_none(first_of_warp, last_of_warp, key, key + kKeys - 1);
    copy_wait<0>();
    block_barrier();   // keys and values are here, and no warp multiplies the keys of before
    if (Memory::kBuffers == 2 && more) copy(memory.keys[1 - buffer], problem.keys, problem.head_size, key + kKeys);
    Sums share[kStacks][kParts], dp[kStacks][kParts];
    if (needed) {
      GRAFT_UNROLL
      for (int stack = 0; stack < kStacks; ++stack) {
        const int r = row + 16 * stack + lane_group();
        const float delta[2] = {memory.deltas.read(r), memory.deltas.read(r + 8)};
        set_zero(share[stack]);
        for_each(dp[stack], [&](float& value, int half, int) { value = -delta[half]; });
      }
      add_products<Shape::kValue>(dp, memory.gradients, row, memory.values);
      add_products<Shape::kHead>(share, memory.queries, row, memory.keys[buffer]);
    }
    block_barrier();   // no warp needs the values any more
    if (more) copy(memory.values, problem.values, problem.value_size, key + kKeys);
    if (needed) {
      GRAFT_UNROLL
      for (int stack = 0; stack < kStacks; ++stack) {
        const int of_stack = first_of_warp + 16 * stack, query = of_stack + lane_group(), distance = key + lane_pair() - query;
        const auto distance_of = [&](int half, int column) { return distance + column - 8 * half; };
        const int r = row + 16 * stack + lane_group();
        const float log_sum[2] = {memory.log_sums.read(r), memory.log_sums.read(r + 8)};
        scores.finish(share[stack], dp[stack], distance_of);
        for_each(share[stack], [&](float& value, int half, int) { value = power_of_two(fused_multiply_add(value, scores.unit(), -log_sum[half])); });
        if (!scores.see_all(of_stack, of_stack + 15, key, key + kKeys - 1)) {
          const auto query_of = [&](int half, int) { return query + 8 * half; };
          scores.hide(share[stack], 0, distance_of, query_of, [&](int half, int) { return query + 8 * half < end; });
        }
        multiply_each(share[stack], dp[stack]);
      }
      add_weighted_rows(query_gradient, share, memory.keys[buffer]);
    }
    if (Memory::kBuffers == 2) {
      buffer = 1 - buffer;
    } else if (more) {
      block_barrier();   // no warp needs the keys any more
      copy(memory.keys[0], problem.keys, problem.head_size, key + kKeys);
    }
  }
  warp_barrier();   // this warp alone read its rows
  GRAFT_UNROLL
  for (int stack = 0; stack < kStacks; ++stack) write_sums(memory.queries, row + 16 * stack, query_gradient[stack], problem.scale, problem.scale);
  warp_barrier();
  store_rows<16 * kStacks>(memory.queries, row, arguments.query_gradient, head, problem.head_size, int64_t(tile.first) + row, tile.count - row);
}

// The tiles of queries that see a tile of keys: of its own document first, then, of keys of the shared prefix, of every later one, whose first keys they are
// there, before its own. Of each document one query head of the group after the other.
struct SeeingQueries {
  const AttentionBackward& arguments;
  const AttentionTile& tile;
  const int kv_head;
  int document, document_begin, document_end, head, token;   // document: -1: the tile's own, which comes first

  GRAFT_DEVICE SeeingQueries(const AttentionBackward& of, const AttentionTile& keys, int head_of_keys)
      : arguments(of), tile(keys), kv_head(head_of_keys), document(-1), document_begin(keys.document_begin), document_end(keys.document_end), head(head_of_keys * group()), token(first_token()) {
    find();
  }
  GRAFT_DEVICE bool done() const { return document == num_further(); }
  // In the document.
  GRAFT_DEVICE int before() const { return document < 0 ? tile.before : arguments.problem.shared_prefix; }
  GRAFT_DEVICE int first_query() const { return before() + token - document_begin; }
  GRAFT_DEVICE int first_key() const { return document < 0 ? tile.before + tile.first - document_begin : tile.first; }
  GRAFT_DEVICE int num_keys() const { return document < 0 ? tile.count : lesser(tile.count, arguments.problem.shared_prefix - tile.first); }
  GRAFT_DEVICE void advance(int queries) {
    token += queries;
    find();
  }

 private:
  GRAFT_DEVICE int group() const { return arguments.problem.num_heads / arguments.problem.num_kv_heads; }
  GRAFT_DEVICE int num_further() const { return tile.document_begin == 0 && tile.first < arguments.problem.shared_prefix ? arguments.num_documents : 0; }
  GRAFT_DEVICE int first_token() const { return document_begin + greater(0, first_key() - before()); }
  GRAFT_DEVICE bool sees() const { return token < document_end && (arguments.problem.window == 0 || first_query() < first_key() + num_keys() + arguments.problem.window - 1); }
  // To the first tile from here on that sees a key.
  GRAFT_DEVICE void find() {
    while (!done() && !sees()) {
      if (++head == (kv_head + 1) * group()) {
        do {
          if (++document == num_further()) return;
          document_begin = load(arguments.document_offsets + document);
        } while (document_begin == 0);
        document_end = load(arguments.document_offsets + document + 1);
        head = kv_head * group();
      }
      token = first_token();
    }
  }
};

template <typename Shape>
GRAFT_KERNEL(Shape::kThreads, 1) attention_key_gradient(const AttentionBackward arguments) {
  using Memory = KeyMemory<Shape>;
  constexpr int kQueries = Shape::kQueries, kThreads = Shape::kThreads, kParts = kQueries / 8;
  auto& memory = GRAFT_SHARED(Memory);
  const auto& problem = arguments.problem;
  const int kv_head = static_cast<int>(block_in_grid() % problem.num_kv_heads);
  const AttentionTile tile = load(arguments.key_tiles + block_in_grid() / problem.num_kv_heads);
  const int row = thread_in_block() / kWarp * 16;
  const auto token_of_row = [&](int r) { return r < tile.count ? tile.first + r : -1; };
  const auto copy = [&](auto& to, const SeeingQueries& from) {
    const auto token_of = [&](int r) { return from.token + r < from.document_end ? from.token + r : -1; };
    copy_rows<kThreads>(to.queries, problem.queries, from.head, problem.head_size, token_of);
    copy_rows<kThreads>(to.gradients, arguments.gradient, from.head, problem.value_size, token_of);
    const int64_t of_head = int64_t(from.head) * problem.num_tokens + from.token;
    for (int r = thread_in_block(); r < kQueries; r += kThreads) {
      const bool valid = token_of(r) >= 0;
      copy_async<1>(to.log_sums, r, arguments.log_sums_HN + (valid ? of_head + r : 0), valid);
      copy_async<1>(to.deltas, r, arguments.delta_HN + (valid ? of_head + r : 0), valid);
    }
    copy_commit();
  };
  SeeingQueries at(arguments, tile, kv_head);
  copy_rows<kThreads>(memory.keys, problem.keys, kv_head, problem.head_size, token_of_row);
  copy_rows<kThreads>(memory.values, problem.values, kv_head, problem.value_size, token_of_row);
  if (!at.done()) copy(memory.sides[0], at);

  Sums key_gradient[1][Shape::kHead / 8], value_gradient[1][Shape::kValue / 8];
  set_zero(key_gradient[0]);
  set_zero(value_gradient[0]);
  int buffer = 0;
  while (!at.done()) {
    const int first_key = at.first_key(), num_keys = at.num_keys(), first_query = at.first_query(), valid_queries = at.document_end - at.token;
    const Scores<Shape::kPlain> scores(problem, at.head, at.document_begin, at.before());
    at.advance(kQueries);
    copy_wait<0>();
    block_barrier();   // queries are here, and no warp multiplies those of before
    if (Memory::kBuffers == 2 && !at.done()) copy(memory.sides[1 - buffer], at);
    const auto& side = memory.sides[buffer];
    const int first_of_warp = first_key + row, key = first_of_warp + lane_group(), query = first_query + lane_pair();
    if (row < num_keys && !scores.see_none(first_query, first_query + kQueries - 1, first_of_warp, first_of_warp + 15)) {
      Sums share[1][kParts], dp[1][kParts];   // rows are keys, columns queries
      set_zero(share[0]);
      for_each(dp[0], [&](float& value, int, int column) { value = -side.deltas.read(lane_pair() + column); });
      add_products<Shape::kHead>(share, memory.keys, row, side.queries);
      add_products<Shape::kValue>(dp, memory.values, row, side.gradients);
      const auto distance_of = [&](int half, int column) { return key - query + 8 * half - column; };
      scores.finish(share[0], dp[0], distance_of);
      for_each(share[0], [&](float& value, int, int column) { value = power_of_two(fused_multiply_add(value, scores.unit(), -side.log_sums.read(lane_pair() + column))); });
      if (row + 16 > num_keys || valid_queries < kQueries || !scores.see_all(first_query, first_query + kQueries - 1, first_of_warp, first_of_warp + 15)) {
        const auto query_of = [&](int, int column) { return query + column; };
        scores.hide(share[0], 0, distance_of, query_of, [&](int half, int column) { return key + 8 * half < first_key + num_keys && query + column < first_query + valid_queries; });
      }
      multiply_each(dp[0], share[0]);
      add_weighted_rows(value_gradient, share, side.gradients);
      add_weighted_rows(key_gradient, dp, side.queries);
    }
    if (Memory::kBuffers == 2) {
      buffer = 1 - buffer;
    } else if (!at.done()) {
      block_barrier();   // no warp needs these queries any more
      copy(memory.sides[0], at);
    }
  }

  const int64_t first = int64_t(tile.first) + row;
  copy_wait<0>();
  block_barrier();   // where no query came: keys and values are here
  write_sums(memory.keys, row, key_gradient[0], problem.scale, problem.scale);
  write_sums(memory.values, row, value_gradient[0], 1, 1);
  warp_barrier();
  store_rows<16>(memory.keys, row, arguments.key_gradient, kv_head, problem.head_size, first, tile.count - row);
  store_rows<16>(memory.values, row, arguments.value_gradient, kv_head, problem.value_size, first, tile.count - row);
}

}  // namespace

template <typename Element>
bool launch_kernels(const AttentionBackward& arguments, void* stream) {
  return for_attention_shapes<Element>(arguments.problem, false, [&](auto shape) {
    using Shape = decltype(shape);
    LAUNCH(attention_query_gradient<Shape>, int64_t(arguments.num_query_tiles) * arguments.problem.num_heads, Shape::kThreads, sizeof(QueryMemory<Shape>), stream, arguments);
    LAUNCH(attention_key_gradient<Shape>, int64_t(arguments.num_key_tiles) * arguments.problem.num_kv_heads, Shape::kThreads, sizeof(KeyMemory<Shape>), stream, arguments);
  });
}

}  // namespace graft::cuda
