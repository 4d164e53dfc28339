// y = z B^T + bias, and += for further ranks. A block has a chunk of columns, keeps their factors in shared memory and goes through tiles of rows, a warp 16 rows; several blocks a
// multiprocessor overlap copies and products. Bound by memory: one write of y.
#include "kernels/lora_linear/lora_sums.cuh"

namespace graft::cuda {
namespace {

constexpr int kRows = kLoraRows, kThreads = kRows / 16 * kWarp;

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
  const int64_t split = block_in_grid() / window.num_chunks, end = lesser((split + 1) * window.split * kRows, layer.num_rows);
  int number = 0;
  while (chunk >= window.first_chunk[number + 1]) ++number;
  const LoraPart& part = layer.parts[number];
  const int64_t column = (chunk - window.first_chunk[number]) * kColumns;   // of the part
  const int row = thread_in_block() / kWarp * 16, ranks = part.padded_ranks - window.first, columns = left_of(part.outputs, column);
  const bool adds = window.first > 0;
  const float* bias = !adds && part.bias_O ? part.bias_O + column : nullptr;

  const Element* b = static_cast<const Element*>(layer.b_OR) + (part.first_output + column) * layer.b_stride + window.first;
  copy_part<kThreads>(memory.factors, {b, layer.b_stride, columns, ranks});
  for (int64_t first_row = split * window.split * kRows; first_row < end; first_row += kRows) {
    const int rows = left_of(end, first_row);
    Element* y = static_cast<Element*>(arguments.y_NO) + first_row * layer.outputs + part.first_output + column;
    block_barrier();   // no warp needs the rows of before
    const Element* z = static_cast<const Element*>(arguments.z_NR) + first_row * layer.ranks + part.first_rank + window.first;
    copy_part<kThreads>(memory.low, {z, layer.ranks, rows, ranks});
    if (adds) copy_part<kThreads>(memory.outputs, {y, layer.outputs, rows, columns});
    copy_commit();
    copy_wait<0>();
    block_barrier();
    add_low_rank<false>(memory.outputs, row, memory.low, memory.factors, adds,
                        [&](float product, int, int c) { return bias && c < columns ? product + load(bias + c) : product; });
    warp_barrier();
    store_rows_of_warp(memory.outputs, row, MatrixPart<Element>{y, layer.outputs, rows, columns});
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
    static_assert(sizeof(Memory) <= kLeastSharedBytes, "sm_89 and sm_120 have no more");
    LAUNCH((lora_expand<Element, kWidth>), blocks, kThreads, sizeof(Memory), stream, arguments);
    return true;
  });
  return known ? launch_error() : "no LoRA kernel of this width";
}

}  // namespace graft::cuda
