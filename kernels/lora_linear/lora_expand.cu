// y += z B^T + bias and, on the way back, dp += dropout(dz A) with dA = dz^T dropout(p). A block has a chunk of columns, keeps their factors in shared memory
// and goes through tiles of rows, a warp 16 rows; several blocks an SM overlap copies and products. Bound by memory: one read and one write of y, or of dp
// beside one read of p.
#include "kernels/lora_linear/lora_sums.cuh"

namespace graft::cuda {
namespace {

constexpr int kRows = kLoraRows, kWarps = kRows / 16, kThreads = kWarps * kWarp;

template <typename Element, int kWidth>
struct ExpandMemory {
  static constexpr int kColumns = lora_columns(sizeof(Element) == 4, kWidth);
  Tile<Element, kRows, kWidth> low;
  Tile<Element, kColumns, kWidth> factors;
  Tile<Element, kRows, kColumns> outputs;
};

template <typename Element, int kWidth>
GRAFT_KERNEL(kThreads) lora_expand(const LoraExpand arguments) {
  using Memory = ExpandMemory<Element, kWidth>;
  constexpr int kColumns = Memory::kColumns;
  auto& memory = GRAFT_SHARED(Memory);
  const auto& layer = arguments.layer;
  const auto& window = arguments.window;
  const int chunk = static_cast<int>(block_in_grid() % window.num_chunks);
  const int64_t first_tile = block_in_grid() / window.num_chunks * window.split;
  int number = 0;
  while (chunk >= window.first_chunk[number + 1]) ++number;
  const LoraPart& part = layer.parts[number];
  const int64_t column = (chunk - window.first_chunk[number]) * kColumns;   // of the part
  const int row = thread_in_block() / kWarp * 16, ranks = part.padded_ranks;
  const float* bias = window.first == 0 ? part.bias_O : nullptr;

  copy_part<kThreads>(memory.factors, {static_cast<const Element*>(layer.b_OR) + (part.first_output + column) * layer.b_stride + window.first, layer.b_stride, part.outputs - column, ranks - window.first});
  for (int64_t tile = first_tile; tile < first_tile + window.split && tile * kRows < layer.num_rows; ++tile) {
    const int64_t first_row = tile * kRows, rows = layer.num_rows - first_row;
    Element* y = static_cast<Element*>(arguments.y_NO) + first_row * layer.outputs + part.first_output + column;
    block_barrier();   // no warp needs the rows of before
    copy_part<kThreads>(memory.low, {static_cast<const Element*>(arguments.z_NR) + first_row * layer.ranks + part.first_rank + window.first, layer.ranks, rows, ranks - window.first});
    copy_part<kThreads>(memory.outputs, {y, layer.outputs, rows, part.outputs - column});
    copy_commit();
    copy_wait<0>();
    block_barrier();
    add_low_rank<false>(memory.outputs, row, memory.low, memory.factors, [&](float product, int, int c) { return bias && column + c < part.outputs ? product + load(bias + column + c) : product; });
    warp_barrier();
    store_rows_of_warp(memory.outputs, row, MatrixPart<Element>{y, layer.outputs, rows, part.outputs - column});
  }
}

template <typename Element, int kWidth>
struct ShrinkBackwardMemory {
  static constexpr int kColumns = lora_columns(sizeof(Element) == 4, kWidth);
  Tile<Element, kRows, kWidth> low;
  Tile<Element, kWidth, kColumns> factors;
  Tile<Element, kRows, kColumns> inputs, outputs;
};

template <typename Element, int kWidth>
GRAFT_KERNEL(kThreads) lora_shrink_backward(const LoraShrinkBackward arguments) {
  using Memory = ShrinkBackwardMemory<Element, kWidth>;
  constexpr int kColumns = Memory::kColumns, kGroups = kColumns / (16 * kWarps);   // of 16 columns whose factors' gradient this warp sums
  auto& memory = GRAFT_SHARED(Memory);
  const auto& layer = arguments.layer;
  const auto& window = arguments.window;
  const int64_t column = block_in_grid() % window.num_chunks * kColumns, split = block_in_grid() / window.num_chunks, a_stride = (layer.inputs + kLoraStep - 1) / kLoraStep * kLoraStep;
  const int row = thread_in_block() / kWarp * 16;
  Sums gradient[kGroups][kWidth / 8];
  GRAFT_UNROLL
  for (int group = 0; group < kGroups; ++group) set_zero(gradient[group]);

  copy_part<kThreads>(memory.factors, part_at<Element>(layer.a_RC, layer.ranks, a_stride, a_stride, window.first, column));
  for (int64_t tile = split * window.split; tile < (split + 1) * window.split && tile * kRows < layer.num_rows; ++tile) {
    const int64_t first_row = tile * kRows, rows = layer.num_rows - first_row;
    Element* dp = arguments.p_gradient_NC ? static_cast<Element*>(arguments.p_gradient_NC) + first_row * layer.inputs + column : nullptr;
    block_barrier();   // no warp needs the rows of before
    copy_part<kThreads>(memory.low, part_at<Element>(arguments.z_gradient_NR, layer.num_rows, layer.ranks, layer.ranks, first_row, window.first));
    copy_part<kThreads>(memory.inputs, part_at<Element>(arguments.p_NC, layer.num_rows, layer.inputs, layer.inputs, first_row, column));
    if (dp) copy_part<kThreads>(memory.outputs, {dp, layer.inputs, rows, layer.inputs - column});
    copy_commit();
    copy_wait<0>();
    apply_dropout<kThreads>(memory.inputs, layer, first_row, column);
    block_barrier();
    GRAFT_UNROLL
    for (int group = 0; group < kGroups; ++group) add_product<kRows, true, true>(gradient[group], memory.inputs, (group * kWarps) * 16 + row, 0, memory.low, 0, 0);
    if (!dp) continue;
    add_low_rank<true>(memory.outputs, row, memory.low, memory.factors, [&](float product, int r, int c) {
      const bool dropped = layer.mask.row_keys_N && r < rows;
      return dropped ? product * dropout_factor(layer.mask, load(layer.mask.row_keys_N + first_row + r), column + c) : product;
    });
    warp_barrier();
    store_rows_of_warp(memory.outputs, row, MatrixPart<Element>{dp, layer.inputs, rows, layer.inputs - column});
  }

  GRAFT_UNROLL
  for (int group = 0; group < kGroups; ++group) {
    for_pairs(gradient[group], [&](int r, int c, float first, float second) {
      const int64_t input = column + group * kWarps * 16 + row + r;
      if (input < layer.inputs) store(reinterpret_cast<Pack<float, 2>*>(arguments.a_partials + (split * layer.inputs + input) * kWidth + c), Pack<float, 2>{{first, second}});
    });
  }
}

}  // namespace

const char* launch(const LoraExpand& arguments, void* stream) {
  const auto& window = arguments.window;
  const int64_t blocks = int64_t(window.num_chunks) * window.num_splits;
  if (blocks == 0) return nullptr;
  const bool known = for_lora_kernel<16, 32, 64, 128>(arguments.layer, window, [&](auto element, auto width) {
    using Element = decltype(element);
    constexpr int kWidth = decltype(width)::kValue;
    using Memory = ExpandMemory<Element, kWidth>;
    static_assert(sizeof(Memory) <= kLoraSharedBytes, "sm_89 and sm_120 have no more");
    LAUNCH((lora_expand<Element, kWidth>), blocks, kThreads, sizeof(Memory), stream, arguments);
    return true;
  });
  return known ? launch_error() : "no LoRA kernel of this width";
}

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
      static_assert(sizeof(Memory) <= kLoraSharedBytes, "sm_89 and sm_120 have no more");
      if (blocks > 0) LAUNCH((lora_shrink_backward<Element, kWidth>), blocks, kThreads, sizeof(Memory), stream, arguments);
      launch_sum_factors<true>(arguments.layer, window, arguments.a_partials, stream);
      return true;
    }
  });
  return known ? launch_error() : "no LoRA kernel of this width";
}

}  // namespace graft::cuda
