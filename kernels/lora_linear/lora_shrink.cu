// z = scale * dropout(p) A^T for all parts at once. A block has the rows of a tile, a warp 16 of them and all ranks; the next columns of p and A travel while
// these are multiplied. Where rows are few, several blocks share the columns of a tile and a second pass adds their sums. Bound by the one read of p.
#include "kernels/lora_linear/lora_sums.cuh"

namespace graft::cuda {
namespace {

constexpr int kRows = kLoraShrinkRows, kColumns = kLoraShrinkColumns, kThreads = 2 * kRows;

template <typename Element, int kWidth>
struct ShrinkMemory {
  static constexpr int kStages = sizeof(Element) == 2 ? 2 : 1;
  Tile<Element, kRows, kColumns> inputs[kStages];
  Tile<Element, kWidth, kColumns> factors[kStages];
};

template <typename Element, int kWidth>
GRAFT_KERNEL(kThreads) lora_shrink(const LoraShrink arguments) {
  using Memory = ShrinkMemory<Element, kWidth>;
  constexpr int kStages = Memory::kStages;
  auto& memory = GRAFT_SHARED(Memory);
  const auto& layer = arguments.layer;
  const auto& window = arguments.window;
  const int64_t first_row = block_in_grid() / window.num_splits * kRows, split = block_in_grid() % window.num_splits, a_stride = a_stride_of(layer);
  const int64_t begin = split * window.split, end = lesser(begin + window.split, layer.inputs);
  const int row = thread_in_block() / kWarp * 16;   // this warp's first
  Sums sums[kWidth / 8];
  set_zero(sums);

  const auto copy = [&](int64_t column, int stage) {
    if (column < end) {
      copy_part<kThreads>(memory.inputs[stage], part_at<Element>(arguments.p_NC, layer.num_rows, layer.inputs, layer.inputs, first_row, column));
      copy_part<kThreads>(memory.factors[stage], part_at<Element>(layer.a_RC, layer.ranks, a_stride, a_stride, window.first, column));
    }
    copy_commit();
  };
  copy(begin, 0);
  int stage = 0;
  for (int64_t column = begin; column < end; column += kColumns) {
    if (kStages > 1) copy(column + kColumns, 1 - stage);
    copy_wait<kStages - 1>();
    apply_dropout<kThreads>(memory.inputs[stage], layer, first_row, column, static_cast<KeptElements<Element, kRows, kColumns>*>(nullptr));
    block_barrier();
    add_product<kColumns, false, false>(sums, memory.inputs[stage], row, 0, memory.factors[stage], 0, 0);
    block_barrier();   // no warp needs these columns any more
    if (kStages > 1) {
      stage = 1 - stage;
    } else {
      copy(column + kColumns, 0);
    }
  }

  for_pairs(sums, [&](int r, int c, float first, float second) {
    const int64_t n = first_row + row + r;
    const int rank = window.first + c;
    if (n >= layer.num_rows || rank >= layer.ranks) return;
    if (window.num_splits > 1) {
      store_pair(arguments.partials + (split * layer.num_rows + n) * kWidth + c, first, second);
      return;
    }
    const float scale = layer.parts[part_of_rank(layer, rank)].scale;
    store_pair(static_cast<Element*>(arguments.z_NR) + n * layer.ranks + rank, first * scale, second * scale);
  });
}

}  // namespace

const char* launch(const LoraShrink& arguments, void* stream) {
  const auto& layer = arguments.layer;
  const auto& window = arguments.window;
  if (layer.num_rows == 0) return nullptr;
  const bool known = for_lora_kernel<16, 32, 64, 128, 192>(layer, window, [&](auto element, auto width) {
    using Element = decltype(element);
    constexpr int kWidth = decltype(width)::kValue;
    using Memory = ShrinkMemory<Element, kWidth>;
    static_assert(sizeof(Memory) <= kLeastSharedBytes, "sm_89 and sm_120 have no more");
    LAUNCH((lora_shrink<Element, kWidth>), (layer.num_rows + kRows - 1) / kRows * window.num_splits, kThreads, sizeof(Memory), stream, arguments);
    if (window.num_splits > 1) launch_sum_rows<Element, false>(layer, window, arguments.partials, arguments.z_NR, stream);
    return true;
  });
  return known ? launch_error() : "no LoRA kernel of this width";
}

}  // namespace graft::cuda
