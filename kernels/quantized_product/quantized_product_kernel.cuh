// y = x W^T or x W for few rows of x. A block has a tile of rows and of outputs and goes through the inner dimension, a warp all rows and 16 outputs; W's next
// tile is decoded into shared memory while other warps multiply this one. Where outputs are few, several blocks share the inner dimension and a second pass
// adds their sums. Bound by the read of the blocks and by decoding.
#pragma once
#include "kernels/cuda/matrix_part.cuh"
#include "kernels/cuda/tile_product.cuh"
#include "kernels/quantized/block_forms.h"
#include "kernels/quantized_product/global_block.cuh"
#include "kernels/quantized_product/launch_by_type.cuh"

namespace graft::cuda {
namespace {

constexpr int kTile = kQuantizedTile, kThreads = kTile / 16 * kWarp, kGroups = kTile / 16;
constexpr int kSumThreads = 256;

template <typename Element>
struct QuantizedProductMemory {
  static constexpr int kStages = sizeof(Element) == 2 ? 2 : 1;   // two of float32 would leave a multiprocessor of sm_89 one block
  Tile<Element, kTile, kTile> rows[kStages];
  Tile<Element, kTile, kTile> weights[kStages];
};

// The tile of W at (row, column), zeros behind its end. Whole parts exist or not: blocks are whole multiples of kDecoded.
template <typename Block, typename Element>
GRAFT_DEVICE void decode_tile(Tile<Element, kTile, kTile>& to, const QuantizedMatrix& matrix, int64_t row, int64_t column) {
  constexpr int kPartsOfRow = kTile / kDecoded;
  GRAFT_UNROLL
  for (int turn = 0; turn < kTile * kPartsOfRow / kThreads; ++turn) {
    const int part = thread_in_block() + turn * kThreads, r = part / kPartsOfRow, c = part % kPartsOfRow * kDecoded;
    float values[kDecoded] = {};
    if (row + r < matrix.rows && column + c < matrix.columns) decode_elements<Block>(matrix, (row + r) * matrix.columns + column + c, values);
    for_rounded_packs<Element>(values, [&](int k, const auto& pack) { to.elements.template write_pack<kWidestPack<Element>>(to.index(r, c + k), pack); });
  }
}

template <typename Element>
GRAFT_DEVICE void finish(const QuantizedProduct& arguments, int64_t row, int64_t output, float sum) {
  Element* y = static_cast<Element*>(arguments.y) + row * arguments.y_stride + output;
  store(y, from_float<Element>(arguments.accumulate ? sum + to_float(load(y)) : sum));
}

template <typename Block, typename Element, bool kTransposed>
GRAFT_KERNEL(kThreads) quantized_product(const QuantizedProduct arguments, const int64_t outputs, const int64_t inner, const int64_t row_tiles) {
  using Memory = QuantizedProductMemory<Element>;
  auto& memory = GRAFT_SHARED(Memory);
  const int64_t first_row = block_in_grid() % row_tiles * kTile, split = block_in_grid() / row_tiles % arguments.num_splits;
  const int64_t first_output = block_in_grid() / row_tiles / arguments.num_splits * kTile;
  const int64_t begin = split * arguments.split * kTile, end = lesser(begin + int64_t(arguments.split) * kTile, inner);
  const int own_outputs = thread_in_block() / kWarp * 16;   // this warp's first
  Sums sums[kGroups][2];
  set_zero(sums);

  const auto bring = [&](int64_t at, int stage) {
    copy_part<kThreads>(memory.rows[stage], part_at<Element>(arguments.x, arguments.num_rows, inner, arguments.x_stride, first_row, at));
    copy_commit();
    decode_tile<Block>(memory.weights[stage], arguments.matrix, kTransposed ? at : first_output, kTransposed ? first_output : at);
  };
  if (begin < end) bring(begin, 0);
  int stage = 0;
  for (int64_t at = begin; at < end; at += kTile) {
    copy_wait<0>();
    block_barrier();   // this tile is there, and no warp needs the one before
    if (Memory::kStages > 1 && at + kTile < end) bring(at + kTile, 1 - stage);
    add_product<kTile, false, kTransposed>(sums, memory.rows[stage], 0, 0, memory.weights[stage], own_outputs, 0);
    if (Memory::kStages > 1) {
      stage = 1 - stage;
    } else if (at + kTile < end) {
      block_barrier();
      bring(at + kTile, 0);
    }
  }

  GRAFT_UNROLL
  for (int group = 0; group < kGroups; ++group) {
    for_pairs(sums[group], [&](int r, int c, float first, float second) {
      const int64_t row = first_row + group * 16 + r, output = first_output + own_outputs + c;
      if (row >= arguments.num_rows) return;
      GRAFT_UNROLL
      for (int k = 0; k < 2; ++k) {
        if (output + k >= outputs) return;
        const float sum = k == 0 ? first : second;
        if (arguments.num_splits > 1) {
          store(arguments.partials + (split * arguments.num_rows + row) * outputs + output + k, sum);
        } else {
          finish<Element>(arguments, row, output + k, sum);
        }
      }
    });
  }
}

template <typename Element>
GRAFT_KERNEL(kSumThreads) quantized_product_sum(const QuantizedProduct arguments, const int64_t outputs) {
  const int64_t index = block_in_grid() * kSumThreads + thread_in_block(), count = arguments.num_rows * outputs;
  if (index >= count) return;
  float sum = 0;
  for (int split = 0; split < arguments.num_splits; ++split) sum += load(arguments.partials + split * count + index);
  finish<Element>(arguments, index / outputs, index % outputs, sum);
}

template <typename Block, typename Element>
void launch_form(const QuantizedProduct& arguments, void* stream) {
  using Memory = QuantizedProductMemory<Element>;
  static_assert(sizeof(Memory) <= (48 << 10), "several blocks a multiprocessor");
  const int64_t outputs = quantized_outputs(arguments), inner = quantized_inner(arguments), row_tiles = (arguments.num_rows + kTile - 1) / kTile;
  const int64_t blocks = (outputs + kTile - 1) / kTile * row_tiles * arguments.num_splits;
  if (arguments.transposed) {
    LAUNCH((quantized_product<Block, Element, true>), blocks, kThreads, sizeof(Memory), stream, arguments, outputs, inner, row_tiles);
  } else {
    LAUNCH((quantized_product<Block, Element, false>), blocks, kThreads, sizeof(Memory), stream, arguments, outputs, inner, row_tiles);
  }
}

}  // namespace

template <typename Element>
bool launch_quantized_product(const QuantizedProduct& arguments, void* stream) {
  const int64_t outputs = quantized_outputs(arguments), count = arguments.num_rows * outputs;
  if (count == 0) return true;
  const bool known = for_block_form(arguments.matrix.form, [&](auto form) { launch_form<typename decltype(form)::Block, Element>(arguments, stream); });
  if (known && arguments.num_splits > 1) LAUNCH(quantized_product_sum<Element>, (count + kSumThreads - 1) / kSumThreads, kSumThreads, 0, stream, arguments, outputs);
  return known;
}

}  // namespace graft::cuda
