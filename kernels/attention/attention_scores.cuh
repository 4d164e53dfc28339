// What the kernels of attention share: which key a query sees, what a score is, and how rows of heads come into shared memory.
#pragma once
#include "kernels/attention/attention.cuh"
#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/tile.cuh"

namespace graft::cuda {

// plain: attention_is_plain().
template <typename ElementType, int kHeadSize, int kValueSize, bool plain>
struct AttentionShape {
  using Element = ElementType;
  static constexpr bool kPlain = plain, kWide = sizeof(Element) == 4;
  static constexpr int kHead = kHeadSize, kValue = kValueSize;
  // Rows that a block keeps, 16 a warp or, of queries, several times 16. What lies in shared memory stays below 99 KiB.
  static constexpr int kStacks = attention_stacks(kPlain, kHead), kQueryRows = attention_query_rows(kWide, kPlain, kHead), kKeyRows = attention_key_rows(kWide, kHead), kThreads = 2 * kKeyRows;
  // Rows of the other side that it goes through at a time: as many as registers hold, which larger ones were slower than where they spilt.
  static constexpr int kKeys = kWide ? (kHead <= 128 ? 32 : 16) : kHead <= 96 || (kHead <= 128 && !kPlain) ? 64 : kHead <= 128 ? 48 : 32;
  static constexpr int kBackwardKeys = kWide ? 16 : kHead <= 64 && kPlain ? 48 : 32;                                       // where scores and their gradient stand side by side
  static constexpr int kQueries = kWide || kHead > 128 ? 16 : !kPlain ? 32 : kHead <= 64 ? 96 : kHead <= 96 ? 64 : 48;   // where two gradients fill the registers
  static_assert(kValue <= kHead, "results are staged where queries lay");
};

// f(value, half, column) for a lane's share of sums[16, 8 kParts], which lies in row lane_group() + 8 half and column lane_pair() + column.
template <int kParts, typename Function>
GRAFT_DEVICE void for_each(Sums (&sums)[kParts], const Function& f) {
  GRAFT_UNROLL
  for (int part = 0; part < kParts; ++part) {
    GRAFT_UNROLL
    for (int i = 0; i < 4; ++i) f(sums[part].values[i], i / 2, part * 8 + i % 2);
  }
}

template <int kParts>
GRAFT_DEVICE void set_zero(Sums (&sums)[kParts]) {
  GRAFT_UNROLL
  for (int part = 0; part < kParts; ++part) set_zero(sums[part]);
}

template <int kParts>
GRAFT_DEVICE void multiply_each(Sums (&sums)[kParts], const Sums (&factors)[kParts]) {
  GRAFT_UNROLL
  for (int part = 0; part < kParts; ++part) {
    GRAFT_UNROLL
    for (int i = 0; i < 4; ++i) sums[part].values[i] *= factors[part].values[i];
  }
}

// Of one head and document. Queries and keys are counted within the document, those of the shared prefix first. Scores are those of the formula times log2(e);
// they are kept over `unit`, so that products are scores already where there is neither a softcap nor a slope.
template <bool kPlain>
struct Scores {
  const AttentionProblem& problem;   // its numbers are constants of the launch: they take no registers
  float slope;                       // times log2(e); 0 where kPlain
  int document_begin, before;

  GRAFT_DEVICE Scores(const AttentionProblem& of, int head, int first_token, int keys_before)
      : problem(of), slope(!kPlain && of.slopes_H ? load(of.slopes_H + head) * kLog2E : 0.0F), document_begin(first_token), before(keys_before) {}

  GRAFT_DEVICE float scale() const { return problem.scale * kLog2E; }
  GRAFT_DEVICE float unit() const { return !kPlain && (problem.softcap > 0 || slope != 0) ? 1 : scale(); }
  GRAFT_DEVICE int window() const { return problem.window > 0 ? problem.window : 0x7fffffff; }   // keys that a query sees at most

  // Of tiles: does every query see every key? Can no query see any?
  GRAFT_DEVICE bool see_all(int first_query, int last_query, int first_key, int last_key) const {
    return (kPlain || !problem.selected_NB) && last_key <= first_query && first_key > last_query - window();
  }
  GRAFT_DEVICE bool see_none(int first_query, int last_query, int first_key, int last_key) const {
    return first_key > last_query || last_key <= first_query - window();
  }
  GRAFT_DEVICE int first_key(int query) const { return greater(0, query - window() + 1); }

  // Puts `hidden` in the place of what a query does not see and where exists(half, column) is false. distance_of(half, column): key less query.
  template <int kParts, typename DistanceOf, typename QueryOf, typename Exists>
  GRAFT_DEVICE void hide(Sums (&sums)[kParts], float hidden, const DistanceOf& distance_of, const QueryOf& query_of, const Exists& exists) const {
    for_each(sums, [&](float& value, int half, int column) {
      const int distance = distance_of(half, column);
      if (distance > 0 || distance <= -window() || !exists(half, column)) value = hidden;
    });
    if (kPlain || !problem.selected_NB) return;
    for_each(sums, [&](float& value, int half, int column) {
      const int query = query_of(half, column), key = query + distance_of(half, column);
      if (value != hidden && (load(problem.selected_NB + (document_begin + query - before) * problem.selected_stride + key / 8) >> (key % 8) & 1) == 0) value = hidden;
    });
  }

  // Products of queries and keys to scores.
  template <int kParts, typename DistanceOf>
  GRAFT_DEVICE void finish(Sums (&products)[kParts], const DistanceOf& distance_of) const {
    if (kPlain) return;
    if (problem.softcap > 0) {
      const float inverse = fast_quotient(problem.scale, problem.softcap), cap = problem.softcap * kLog2E;
      for_each(products, [&](float& value, int, int) { value = cap * hyperbolic_tangent(value * inverse); });
    }
    add_slopes(products, distance_of);
  }
  // Likewise, with `gradients` of the scores, which become those of products over the formula's scale, but for the factor of the shares.
  template <int kParts, typename DistanceOf>
  GRAFT_DEVICE void finish(Sums (&products)[kParts], Sums (&gradients)[kParts], const DistanceOf& distance_of) const {
    if (kPlain) return;
    if (problem.softcap > 0) {
      const float inverse = fast_quotient(problem.scale, problem.softcap), cap = problem.softcap * kLog2E;
      GRAFT_UNROLL
      for (int part = 0; part < kParts; ++part) {
        GRAFT_UNROLL
        for (int i = 0; i < 4; ++i) {
          const float t = hyperbolic_tangent(products[part].values[i] * inverse);
          products[part].values[i] = cap * t;
          gradients[part].values[i] *= 1 - t * t;
        }
      }
    }
    add_slopes(products, distance_of);
  }

 private:
  template <int kParts, typename DistanceOf>
  GRAFT_DEVICE void add_slopes(Sums (&scores)[kParts], const DistanceOf& distance_of) const {
    if (slope == 0) return;
    const float scale_left = problem.softcap > 0 ? 1 : scale();
    for_each(scores, [&](float& value, int half, int column) { value = fused_multiply_add(value, scale_left, slope * static_cast<float>(distance_of(half, column))); });
  }
};

GRAFT_DEVICE int token_of_key(int document_begin, int before, int key) { return key < before ? key : document_begin + key - before; }

// Rows of one head into a tile, zeros behind `columns` and where token_of(row) is negative. The caller commits.
template <int kThreads, typename Element, int kRows, int kColumns, typename TokenOf>
GRAFT_DEVICE void copy_rows(Tile<Element, kRows, kColumns>& to, const HeadRows& from, int head, int columns, const TokenOf& token_of) {
  using Of = Tile<Element, kRows, kColumns>;
  constexpr int kPack = kWidestPack<Element>, kPacks = kColumns / kPack;
  const auto* data = static_cast<const Element*>(from.data) + head * from.head_stride;
  const int stride = static_cast<int>(from.token_stride);
  const auto copy = [&](int row, int column) {
    const int token = token_of(row);
    const bool valid = token >= 0 && column < columns;
    copy_async<kPack>(to.elements, Of::index(row, column), data + column + int64_t(valid ? token : 0) * stride, valid);
  };
  if constexpr (kThreads % kPacks == 0) {   // a thread stays in its column
    const int column = thread_in_block() % kPacks * kPack;
    GRAFT_UNROLL_BY(2)   // addresses of more copies at once would drive sums out of the registers
    for (int row = thread_in_block() / kPacks; row < kRows; row += kThreads / kPacks) copy(row, column);
  } else {
    GRAFT_UNROLL_BY(1)
    for (int i = thread_in_block(); i < kRows * kPacks; i += kThreads) copy(i / kPacks, i % kPacks * kPack);
  }
}

// sums[16 kStacks, 8 kParts] += a b^T of a warp's rows of one tile and as many rows of another. Operands are loaded one product ahead.
template <int kInner, int kStacks, int kParts, typename Element, int kRows, int kOtherRows, int kColumns>
GRAFT_DEVICE void add_products(Sums (&sums)[kStacks][kParts], const Tile<Element, kRows, kColumns>& rows, int row, const Tile<Element, kOtherRows, kColumns>& others) {
  constexpr int kSteps = kInner / 16 * kParts / 2;
  OperandA<Element> left[2][kStacks];
  OperandB<Element> right[2][2];
  const auto load_step = [&](int step) {
    const int k = step / (kParts / 2) * 16, part = step % (kParts / 2) * 2;
    if (part == 0) {
      GRAFT_UNROLL
      for (int stack = 0; stack < kStacks; ++stack) left[k / 16 % 2][stack] = load_a(rows, row + 16 * stack, k);
    }
    load_b(right[step % 2], others, part * 8, k);
  };
  load_step(0);
  GRAFT_UNROLL
  for (int step = 0; step < kSteps; ++step) {
    if (step + 1 < kSteps) load_step(step + 1);
    const int k = step / (kParts / 2) * 16, part = step % (kParts / 2) * 2;
    GRAFT_UNROLL
    for (int stack = 0; stack < kStacks; ++stack) {
      multiply_add<Element>(sums[stack][part], left[k / 16 % 2][stack], right[step % 2][0]);
      multiply_add<Element>(sums[stack][part + 1], left[k / 16 % 2][stack], right[step % 2][1]);
    }
  }
}

// sums[16 kStacks, 8 kParts] += weights[16 kStacks, 8 kInnerParts] rows. Operands are loaded one product ahead.
template <int kStacks, int kParts, int kInnerParts, typename Element, int kRows, int kColumns>
GRAFT_DEVICE void add_weighted_rows(Sums (&sums)[kStacks][kParts], const Sums (&weights)[kStacks][kInnerParts], const Tile<Element, kRows, kColumns>& rows) {
  constexpr int kSteps = kInnerParts / 2 * kParts / 2;
  OperandA<Element> left[kStacks];
  OperandB<Element> right[2][2];
  const auto load_step = [&](int step) { load_b<true>(right[step % 2], rows, step % (kParts / 2) * 16, step / (kParts / 2) * 16); };
  load_step(0);
  GRAFT_UNROLL
  for (int step = 0; step < kSteps; ++step) {
    const int inner = step / (kParts / 2) * 2, part = step % (kParts / 2) * 2;
    if (step + 1 < kSteps) load_step(step + 1);
    if (part == 0) {
      GRAFT_UNROLL
      for (int stack = 0; stack < kStacks; ++stack) left[stack] = as_a<Element>(weights[stack][inner], weights[stack][inner + 1]);
    }
    GRAFT_UNROLL
    for (int stack = 0; stack < kStacks; ++stack) {
      multiply_add<Element>(sums[stack][part], left[stack], right[step % 2][0]);
      multiply_add<Element>(sums[stack][part + 1], left[stack], right[step % 2][1]);
    }
  }
}

// sums[16, kColumns], kColumns / 8 operands side by side, to a warp's 16 rows of a tile.
template <typename Element, int kRows, int kColumns, int kParts>
GRAFT_DEVICE void write_sums(Tile<Element, kRows, kColumns>& to, int row, const Sums (&sums)[kParts], float first_factor, float second_factor) {
  using Of = Tile<Element, kRows, kColumns>;
  GRAFT_UNROLL
  for (int part = 0; part < kParts; ++part) {
    const int column = part * 8 + lane_pair();
    to.elements.write_pack(Of::index(row + lane_group(), column), Pack<Element, 2>{{from_float<Element>(sums[part].values[0] * first_factor), from_float<Element>(sums[part].values[1] * first_factor)}});
    to.elements.write_pack(Of::index(row + lane_group() + 8, column), Pack<Element, 2>{{from_float<Element>(sums[part].values[2] * second_factor), from_float<Element>(sums[part].values[3] * second_factor)}});
  }
}

// A warp's `kCount` rows of a tile to the rows of tokens first_token ..., as many as are valid.
template <int kCount, typename Element, int kRows, int kColumns>
GRAFT_DEVICE void store_rows(const Tile<Element, kRows, kColumns>& from, int row, const MutableHeadRows& to, int head, int columns, int64_t first_token, int valid_rows) {
  using Of = Tile<Element, kRows, kColumns>;
  constexpr int kPack = kWidestPack<Element>;
  const int packs = columns / kPack;
  auto* data = static_cast<Element*>(to.data) + head * to.head_stride;
  for (int i = thread_in_block() % kWarp; i < kCount * packs; i += kWarp) {
    const int within = i / packs, column = i % packs * kPack;
    if (within >= valid_rows) continue;
    store(reinterpret_cast<Pack<Element, kPack>*>(data + (first_token + within) * to.token_stride + column), from.elements.template read_pack<kPack>(Of::index(row + within, column)));
  }
}

// f(AttentionShape) for the sizes of a problem; false where no kernel takes them.
template <typename Element, bool kPlain, typename Function>
bool for_attention_sizes(const AttentionProblem& problem, const Function& function) {
  const int size = attention_head_size(problem.head_size, problem.value_size);
  if (size == 192 && problem.head_size != problem.value_size) return function(AttentionShape<Element, 192, 128, kPlain>()), true;
  switch (size) {
    case 64: return function(AttentionShape<Element, 64, 64, kPlain>()), true;
    case 80: return function(AttentionShape<Element, 80, 80, kPlain>()), true;
    case 96: return function(AttentionShape<Element, 96, 96, kPlain>()), true;
    case 128: return function(AttentionShape<Element, 128, 128, kPlain>()), true;
    case 192: return function(AttentionShape<Element, 192, 192, kPlain>()), true;
    case 256: return function(AttentionShape<Element, 256, 256, kPlain>()), true;
    default: return false;
  }
}
template <typename Element, typename Function>
bool for_attention_shapes(const AttentionProblem& problem, bool cached, const Function& function) {
  if constexpr (sizeof(Element) == 2) {
    if (attention_is_plain(problem.type, problem.softcap > 0, problem.slopes_H != nullptr, problem.selected_NB != nullptr, cached)) return for_attention_sizes<Element, true>(problem, function);
  }
  return for_attention_sizes<Element, false>(problem, function);
}

// One file instantiates each element type's kernels; attention.cu chooses.
template <typename Element>
bool launch_kernels(const AttentionForward& arguments, void* stream);
template <typename Element>
bool launch_kernels(const AttentionBackward& arguments, void* stream);

}  // namespace graft::cuda
