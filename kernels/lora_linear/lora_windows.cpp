#include "kernels/lora_linear/lora_windows.h"

#include <algorithm>
#include <cmath>

namespace graft {
namespace {

using cuda::LoraLayer;
using cuda::LoraWindow;

constexpr int64_t ceil_divided(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Two blocks for each multiprocessor of a large GPU; a constant, so that the order of sums is no matter of the GPU.
constexpr int64_t kWantedBlocks = 256;
// Steps of a split at least: a block's start and the second pass must not cost more than its work.
constexpr int64_t kLeastSteps = 4;

bool of_parts(LoraPass pass) { return pass == LoraPass::kExpand || pass == LoraPass::kExpandBackward; }

int width_for(int64_t ranks) {
  for (const int width : {16, 32, 64, 128}) {
    if (ranks <= width) return width;
  }
  return 192;
}

// `steps` over splits of equal size, none of them empty.
void split_steps(LoraWindow& window, int64_t steps, int64_t blocks_each, int64_t wanted) {
  const int64_t splits = std::clamp<int64_t>(wanted / std::max<int64_t>(1, blocks_each), 1, std::max<int64_t>(1, steps / kLeastSteps));
  window.split = static_cast<int>(std::max<int64_t>(1, ceil_divided(steps, splits)));
  window.num_splits = static_cast<int>(ceil_divided(steps, window.split));
}

LoraWindow window_at(LoraPass pass, const LoraLayer& layer, int first, int64_t ranks) {
  const bool is_float32 = layer.type == cuda::RowType::kFloat32;
  LoraWindow window = {};
  window.first = first;
  window.width = width_for(std::min<int64_t>(ranks - first, lora_most_ranks(pass, is_float32)));
  if (pass == LoraPass::kShrink) {
    split_steps(window, ceil_divided(layer.inputs, cuda::kLoraShrinkColumns), ceil_divided(layer.num_rows, cuda::kLoraShrinkRows), kWantedBlocks);
    window.split *= cuda::kLoraShrinkColumns;
    return window;
  }
  const auto columns_of = pass == LoraPass::kExpandBackward ? cuda::lora_expand_backward_columns : cuda::lora_columns;
  const int64_t columns = columns_of(is_float32, window.width);
  if (pass == LoraPass::kShrinkBackward) {
    window.num_chunks = static_cast<int>(ceil_divided(layer.inputs, columns));
  } else {
    for (int i = 0; i < layer.num_parts; ++i) {
      const auto& part = layer.parts[i];
      const bool has_work = part.ranks > first || (pass == LoraPass::kExpand && first == 0 && part.bias_O);
      if (has_work) window.num_chunks += static_cast<int>(ceil_divided(part.outputs, columns));
      window.first_chunk[i + 1] = window.num_chunks;
    }
  }
  // Expanding makes no partial sums: more blocks cost nothing.
  split_steps(window, ceil_divided(layer.num_rows, cuda::kLoraRows), window.num_chunks, pass == LoraPass::kExpand ? 2 * kWantedBlocks : kWantedBlocks);
  return window;
}

}  // namespace

int lora_most_ranks(LoraPass pass, bool is_float32) {
  switch (pass) {
    case LoraPass::kShrink: return 192;
    case LoraPass::kExpand: return 128;
    case LoraPass::kExpandBackward: return 64;
    default: return is_float32 ? 64 : 128;
  }
}

std::vector<LoraWindow> lora_windows(LoraPass pass, const LoraLayer& layer) {
  int64_t ranks = of_parts(pass) ? 0 : layer.ranks;
  for (int i = 0; of_parts(pass) && i < layer.num_parts; ++i) {
    const bool has_bias = pass == LoraPass::kExpand && layer.parts[i].bias_O;
    ranks = std::max<int64_t>(ranks, std::max<int64_t>(layer.parts[i].ranks, has_bias ? 1 : 0));
  }
  std::vector<LoraWindow> windows;
  const int most = lora_most_ranks(pass, layer.type == cuda::RowType::kFloat32);
  for (int first = 0; first < ranks; first += most) windows.push_back(window_at(pass, layer, first, ranks));
  return windows;
}

int64_t lora_row_partials(LoraPass pass, const LoraLayer& layer, const LoraWindow& window) {
  if (pass == LoraPass::kShrink) return window.num_splits > 1 ? window.num_splits * layer.num_rows * window.width : 0;
  return pass == LoraPass::kExpandBackward ? window.num_chunks * layer.num_rows * window.width : 0;
}

int64_t lora_factor_partials(LoraPass pass, const LoraLayer& layer, const LoraWindow& window) {
  if (pass == LoraPass::kExpandBackward) return window.num_splits * layer.outputs * window.width;
  return pass == LoraPass::kShrinkBackward ? window.num_splits * layer.inputs * window.width : 0;
}

uint64_t lora_threshold(double probability) { return static_cast<uint64_t>(std::ceil(probability * 0x1p53)); }

}  // namespace graft
