// What the kernels of attention share: which key a query sees, what a score is, and how rows of heads come into shared memory.
#pragma once
#include "kernels/attention/attention.cuh"
#include "kernels/cuda/tile.cuh"

namespace graft::cuda {

template <typename ElementType, int kHeadSize, int kValueSize>
struct AttentionShape {
  using Element = ElementType;
  static constexpr int kHead = kHeadSize, kValue = kValueSize;
  // Rows that a block keeps, 16 a warp, and rows of the other side that it goes through at a time. What lies in shared memory stays below 99 KiB.
  static constexpr int kRows = attention_rows(sizeof(Element) == 4, kHead), kThreads = 2 * kRows;
  static constexpr int kKeys = sizeof(Element) == 2 ? (kHead <= 128 ? 64 : 32) : (kHead <= 128 ? 32 : 16);
  static constexpr int kBackwardKeys = sizeof(Element) == 2 ? 32 : 16;              // where scores and their gradient stand side by side
  static constexpr int kQueries = sizeof(Element) == 2 && kHead <= 128 ? 32 : 16;   // where two gradients fill the registers
  static_assert(kValue <= kHead, "results are staged where queries lay");
};

// Of one head and document. Queries and keys are counted within the document, those of the shared prefix first.
struct Scores {
  float scale, softcap, slope;
  int window;
  const uint8_t* selected;   // of the document's first own token, or null
  int64_t selected_stride;
  int before;

  GRAFT_DEVICE Scores(const AttentionProblem& problem, int head, int document_begin, int keys_before)
      : scale(problem.scale), softcap(problem.softcap), slope(problem.slopes_H ? load(problem.slopes_H + head) : 0.0F), window(problem.window),
        selected(problem.selected_NB ? problem.selected_NB + document_begin * problem.selected_stride : nullptr), selected_stride(problem.selected_stride),
        before(keys_before) {}

  GRAFT_DEVICE bool sees(int query, int key) const {
    if (key > query || (window > 0 && key <= query - window)) return false;
    return !selected || (load(selected + (query - before) * selected_stride + key / 8) >> (key % 8) & 1) != 0;
  }
  // Does every query of a tile see every key of another?
  GRAFT_DEVICE bool see_all(int first_query, int last_query, int first_key, int last_key) const {
    return !selected && last_key <= first_query && (window == 0 || first_key > last_query - window);
  }
  GRAFT_DEVICE int first_key(int query) const { return window > 0 ? greater(0, query - window + 1) : 0; }

  // The softcapped score over its cap.
  GRAFT_DEVICE float capped(float product) const { return hyperbolic_tangent(product * scale / softcap); }
  // Times log2(e).
  GRAFT_DEVICE float of(float product, int query, int key) const {
    const float score = softcap > 0 ? softcap * capped(product) : product * scale;
    return (score + slope * static_cast<float>(key - query)) * kLog2E;
  }
  // d score / d product, over `scale`.
  GRAFT_DEVICE float slope_of(float product) const {
    if (softcap == 0) return 1;
    const float t = capped(product);
    return 1 - t * t;
  }
};

GRAFT_DEVICE int64_t token_of_key(int document_begin, int before, int key) { return key < before ? key : document_begin + key - before; }

// Rows of one head into a tile, zeros behind `columns` and where token_of(row) is negative. The caller commits.
template <int kThreads, typename Element, int kRows, int kColumns, typename TokenOf>
GRAFT_DEVICE void copy_rows(Tile<Element, kRows, kColumns>& to, const HeadRows& from, int head, int columns, const TokenOf& token_of) {
  using Of = Tile<Element, kRows, kColumns>;
  constexpr int kPack = kWidestPack<Element>, kPacks = kColumns / kPack;
  const auto* data = static_cast<const Element*>(from.data) + head * from.head_stride;
  GRAFT_UNROLL_BY(1)   // addresses of several copies at once would drive sums out of the registers
  for (int i = thread_in_block(); i < kRows * kPacks; i += kThreads) {
    const int row = i / kPacks, column = i % kPacks * kPack;
    const int64_t token = token_of(row);
    const bool valid = token >= 0 && column < columns;
    copy_async<kPack>(to.elements, Of::index(row, column), valid ? data + token * from.token_stride + column : data, valid);
  }
}

// products[16, 8 * kParts] of a warp's 16 rows of one tile with as many rows of another: a b^T.
template <int kInner, int kParts, typename Element, int kRows, int kOtherRows, int kColumns>
GRAFT_DEVICE void multiply_rows(Sums (&products)[kParts], const Tile<Element, kRows, kColumns>& rows, int row, const Tile<Element, kOtherRows, kColumns>& others) {
  GRAFT_UNROLL
  for (int part = 0; part < kParts; ++part) set_zero(products[part]);
  GRAFT_UNROLL
  for (int k = 0; k < kInner; k += 16) {
    const auto left = load_a(rows, row, k);
    GRAFT_UNROLL
    for (int part = 0; part < kParts; part += 2) {
      OperandB<Element> right[2];
      load_b(right, others, part * 8, k);
      multiply_add<Element>(products[part], left, right[0]);
      multiply_add<Element>(products[part + 1], left, right[1]);
    }
  }
}

// sums[16, 8 * kParts] += weights[16, 8 * kInnerParts] rows.
template <int kParts, int kInnerParts, typename Element, int kRows, int kColumns>
GRAFT_DEVICE void add_weighted_rows(Sums (&sums)[kParts], const Sums (&weights)[kInnerParts], const Tile<Element, kRows, kColumns>& rows) {
  GRAFT_UNROLL
  for (int inner = 0; inner < kInnerParts; inner += 2) {
    const auto left = as_a<Element>(weights[inner], weights[inner + 1]);
    GRAFT_UNROLL
    for (int part = 0; part < kParts; part += 2) {
      OperandB<Element> right[2];
      load_b<true>(right, rows, part * 8, inner * 8);
      multiply_add<Element>(sums[part], left, right[0]);
      multiply_add<Element>(sums[part + 1], left, right[1]);
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

// A warp's 16 rows of a tile to the rows of tokens first_token ..., as many as are valid.
template <typename Element, int kRows, int kColumns>
GRAFT_DEVICE void store_rows(const Tile<Element, kRows, kColumns>& from, int row, const MutableHeadRows& to, int head, int columns, int64_t first_token, int valid_rows) {
  using Of = Tile<Element, kRows, kColumns>;
  constexpr int kPack = kWidestPack<Element>;
  const int packs = columns / kPack;
  auto* data = static_cast<Element*>(to.data) + head * to.head_stride;
  for (int i = thread_in_block() % kWarp; i < 16 * packs; i += kWarp) {
    const int within = i / packs, column = i % packs * kPack;
    if (within >= valid_rows) continue;
    store(reinterpret_cast<Pack<Element, kPack>*>(data + (first_token + within) * to.token_stride + column), from.elements.template read_pack<kPack>(Of::index(row + within, column)));
  }
}

// f(AttentionShape) for the sizes of a problem; false where no kernel takes them.
template <typename Element, typename Function>
bool for_attention_sizes(const AttentionProblem& problem, const Function& function) {
  const int size = attention_head_size(problem.head_size, problem.value_size);
  if (size == 192 && problem.head_size != problem.value_size) return function(AttentionShape<Element, 192, 128>()), true;
  switch (size) {
    case 64: return function(AttentionShape<Element, 64, 64>()), true;
    case 80: return function(AttentionShape<Element, 80, 80>()), true;
    case 96: return function(AttentionShape<Element, 96, 96>()), true;
    case 128: return function(AttentionShape<Element, 128, 128>()), true;
    case 192: return function(AttentionShape<Element, 192, 192>()), true;
    case 256: return function(AttentionShape<Element, 256, 256>()), true;
    default: return false;
  }
}

// One file instantiates each element type's kernels; attention.cu chooses.
template <typename Element>
bool launch_kernels(const AttentionForward& arguments, void* stream);
template <typename Element>
bool launch_kernels(const AttentionBackward& arguments, void* stream);

}  // namespace graft::cuda
