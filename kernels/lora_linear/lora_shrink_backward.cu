// dp = dropout(dz A), += for further ranks, and dA = dz^T dropout(p) in one read of p. A block has a chunk of columns, keeps their factors in shared memory and the factors' gradient
// in registers, and goes through tiles of rows, a warp 16 rows; several blocks a multiprocessor overlap copies and products. Bound by memory: one read of p,
// one write of dp.
#include "kernels/lora_linear/lora_sums.cuh"

namespace graft::cuda {
namespace {

constexpr int kRows = kLoraRows, kWarps = kRows / 16, kThreads = kWarps * kWarp;

template <typename Element, int kWidth>
struct ShrinkBackwardMemory {
  static constexpr int kColumns = lora_columns(sizeof(Element) == 4, kWidth);
  Tile<Element, kRows, kWidth> low;
  Tile<Element, kWidth, kColumns> factors;
  Tile<Element, kRows, kColumns> inputs, outputs;
  KeptElements<Element, kRows, kColumns> kept;
};

template <typename Element, int kWidth>
GRAFT_KERNEL(kThreads) lora_shrink_backward(const LoraShrinkBackward arguments) {
  using Memory = ShrinkBackwardMemory<Element, kWidth>;
  constexpr int kColumns = Memory::kColumns, kGroups = kColumns / (16 * kWarps);   // of 16 columns whose factors' gradient this warp sums
  auto& memory = GRAFT_SHARED(Memory);
  const auto& layer = arguments.layer;
  const auto& window = arguments.window;
  const int64_t column = block_in_grid() % window.num_chunks * kColumns, split = block_in_grid() / window.num_chunks;
  const int64_t end = lesser((split + 1) * window.split * kRows, layer.num_rows);
  const int row = thread_in_block() / kWarp * 16, columns = left_of(layer.inputs, column);
  const bool adds = window.first > 0;
  Sums gradient[kGroups][kWidth / 8];
  GRAFT_UNROLL
  for (int group = 0; group < kGroups; ++group) set_zero(gradient[group]);

  copy_part<kThreads>(memory.factors, part_at<Element>(layer.a_RC, layer.ranks, a_stride_of(layer), a_stride_of(layer), window.first, column));
  for (int64_t first_row = split * window.split * kRows; first_row < end; first_row += kRows) {
    const int rows = left_of(end, first_row);
    Element* dp = arguments.p_gradient_NC ? static_cast<Element*>(arguments.p_gradient_NC) + first_row * layer.inputs + column : nullptr;
    block_barrier();   // no warp needs the rows of before
    copy_part<kThreads>(memory.low, part_at<Element>(arguments.z_gradient_NR, layer.num_rows, layer.ranks, layer.ranks, first_row, window.first));
    copy_part<kThreads>(memory.inputs, part_at<Element>(arguments.p_NC, layer.num_rows, layer.inputs, layer.inputs, first_row, column));
    if (dp && adds) copy_part<kThreads>(memory.outputs, {dp, layer.inputs, rows, columns});
    copy_commit();
    copy_wait<0>();
    apply_dropout<kThreads>(memory.inputs, layer, first_row, column, &memory.kept);
    block_barrier();
    GRAFT_UNROLL
    for (int group = 0; group < kGroups; ++group) {
      add_product<kRows, true, true>(gradient[group], memory.inputs, group * kWarps * 16 + row, 0, memory.low, 0, 0);
    }
    if (!dp) continue;
    const bool has_dropout = layer.mask.row_keys_N;
    add_low_rank<true>(memory.outputs, row, memory.low, memory.factors, adds, [&](float product, int r, int c) {
      return !has_dropout ? product : memory.kept.at(r, c) ? product * layer.mask.factor : 0.0F;
    });
    warp_barrier();
    store_rows_of_warp(memory.outputs, row, MatrixPart<Element>{dp, layer.inputs, rows, columns});
  }

  GRAFT_UNROLL
  for (int group = 0; group < kGroups; ++group) {
    for_pairs(gradient[group], [&](int r, int c, float first, float second) {
      const int input = group * kWarps * 16 + row + r;
      if (input < columns) store_pair(arguments.a_partials + (split * layer.inputs + column + input) * kWidth + c, first, second);
    });
  }
}

}  // namespace

const char* launch(const LoraShrinkBackward& arguments, void* stream) {
  const auto& window = arguments.window;
  const int64_t blocks = int64_t(window.num_chunks) * window.num_splits;
  const bool known = for_lora_kernel<16, 32, 64, 128>(arguments.layer, window, [&](auto element, auto width) {
    using Element = decltype(element);
    constexpr int kWidth = decltype(width)::kValue;
    if constexpr (sizeof(Element) == 4 && kWidth > 64) {   // lora_most_ranks
      return false;
    } else {
      using Memory = ShrinkBackwardMemory<Element, kWidth>;
      static_assert(sizeof(Memory) <= kLeastSharedBytes, "sm_89 and sm_120 have no more");
      if (blocks > 0) LAUNCH((lora_shrink_backward<Element, kWidth>), blocks, kThreads, sizeof(Memory), stream, arguments);
      launch_sum_factors<true>(arguments.layer, window, arguments.a_partials, stream);
      return true;
    }
  });
  return known ? launch_error() : "no LoRA kernel of this width";
}

}  // namespace graft::cuda
