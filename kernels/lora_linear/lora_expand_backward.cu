// dz = scale * dy B and dB = dy^T z in one read of dy. A block has a chunk of a part's columns, whose factors it keeps in shared memory and whose gradient in
// registers, and goes through tiles of rows: each gives a share of dz, of its columns, that a second pass adds up with those of other chunks. The chunk is
// as wide as registers allow, for the shares are what is written beside the read.
#include "kernels/lora_linear/lora_sums.cuh"

namespace graft::cuda {
namespace {

constexpr int kRows = kLoraRows, kWarps = kRows / 16, kThreads = kWarps * kWarp;
constexpr int kColumns = 128;                       // of a chunk, at a time
constexpr int kGroups = kColumns / (16 * kWarps);   // of 16 columns whose factors' gradient a warp sums

template <typename Element, int kWidth>
struct ExpandBackwardMemory {
  static constexpr int kSteps = lora_expand_backward_columns(sizeof(Element) == 4, kWidth) / kColumns;
  Tile<Element, kRows, kColumns> gradients;   // of y
  Tile<Element, kRows, kWidth> low;
  Tile<Element, kSteps * kColumns, kWidth> factors;
};

template <typename Element, int kWidth>
GRAFT_KERNEL(kThreads) lora_expand_backward(const LoraExpandBackward arguments) {
  using Memory = ExpandBackwardMemory<Element, kWidth>;
  constexpr int kSteps = Memory::kSteps;
  auto& memory = GRAFT_SHARED(Memory);
  const auto& layer = arguments.layer;
  const auto& window = arguments.window;
  const int chunk = static_cast<int>(block_in_grid() % window.num_chunks);
  const int64_t split = block_in_grid() / window.num_chunks;
  int number = 0;
  while (chunk >= window.first_chunk[number + 1]) ++number;
  const LoraPart& part = layer.parts[number];
  const int64_t first_column = (chunk - window.first_chunk[number]) * (kSteps * kColumns);   // of the part
  const int64_t end = lesser((split + 1) * window.split * kRows, layer.num_rows);
  const int row = thread_in_block() / kWarp * 16, ranks = part.padded_ranks - window.first, columns = left_of(part.outputs, first_column);
  const int64_t output = part.first_output + first_column;
  Sums gradient[kSteps][kGroups][kWidth / 8];
  GRAFT_UNROLL
  for (int step = 0; step < kSteps; ++step) {
    GRAFT_UNROLL
    for (int group = 0; group < kGroups; ++group) set_zero(gradient[step][group]);
  }

  copy_part<kThreads>(memory.factors, {static_cast<const Element*>(layer.b_OR) + output * layer.b_stride + window.first, layer.b_stride, columns, ranks});
  for (int64_t first_row = split * window.split * kRows; first_row < end; first_row += kRows) {
    const int rows = left_of(end, first_row);
    Sums low_gradient[kWidth / 8];
    set_zero(low_gradient);
    GRAFT_UNROLL
    for (int step = 0; step < kSteps; ++step) {
      if (step * kColumns >= columns) continue;
      block_barrier();   // no warp needs what was here before
      const Element* dy = static_cast<const Element*>(arguments.y_gradient_NO) + first_row * layer.outputs + output + step * kColumns;
      copy_part<kThreads>(memory.gradients, {dy, layer.outputs, rows, columns - step * kColumns});
      if (step == 0) {
        const Element* z = static_cast<const Element*>(arguments.z_NR) + first_row * layer.ranks + part.first_rank + window.first;
        copy_part<kThreads>(memory.low, {z, layer.ranks, rows, ranks});
      }
      copy_commit();
      copy_wait<0>();
      block_barrier();
      add_product<kColumns, false, true>(low_gradient, memory.gradients, row, 0, memory.factors, 0, step * kColumns);
      GRAFT_UNROLL
      for (int group = 0; group < kGroups; ++group) {
        add_product<kRows, true, true>(gradient[step][group], memory.gradients, group * kWarps * 16 + row, 0, memory.low, 0, 0);
      }
    }
    for_pairs(low_gradient, [&](int r, int c, float first, float second) {
      if (row + r < rows) store_pair(arguments.z_partials + (chunk * layer.num_rows + first_row + row + r) * kWidth + c, first, second);
    });
  }

  GRAFT_UNROLL
  for (int step = 0; step < kSteps; ++step) {
    GRAFT_UNROLL
    for (int group = 0; group < kGroups; ++group) {
      for_pairs(gradient[step][group], [&](int r, int c, float first, float second) {
        const int o = step * kColumns + group * kWarps * 16 + row + r;
        if (o < columns) store_pair(arguments.b_partials + (split * layer.outputs + output + o) * kWidth + c, first, second);
      });
    }
  }
}

}  // namespace

const char* launch(const LoraExpandBackward& arguments, void* stream) {
  const auto& layer = arguments.layer;
  const auto& window = arguments.window;
  const int64_t blocks = int64_t(window.num_chunks) * window.num_splits;
  const bool known = for_lora_kernel<16, 32, 64>(layer, window, [&](auto element, auto width) {
    using Element = decltype(element);
    constexpr int kWidth = decltype(width)::kValue;
    using Memory = ExpandBackwardMemory<Element, kWidth>;
    static_assert(sizeof(Memory) <= kLeastSharedBytes, "sm_89 and sm_120 have no more");
    if (blocks > 0) LAUNCH((lora_expand_backward<Element, kWidth>), blocks, kThreads, sizeof(Memory), stream, arguments);
    launch_sum_rows<Element, true>(layer, window, arguments.z_partials, arguments.z_gradient_NR, stream);
    launch_sum_factors<false>(layer, window, arguments.b_partials, stream);
    return true;
  });
  return known ? launch_error() : "no LoRA kernel of this width";
}

}  // namespace graft::cuda
