// Second passes: partial sums of blocks are added in one order. Bound by memory, mostly cache: a thread has an element, neighbours read neighbours.
#pragma once
#include "kernels/lora_linear/lora_tiles.cuh"

namespace graft::cuda {
namespace {

constexpr int kSumThreads = 256;
constexpr int64_t blocks_for(int64_t elements) { return (elements + kSumThreads - 1) / kSumThreads; }

// The part that has this column of z: padding belongs to the part before it.
GRAFT_DEVICE int part_of_rank(const LoraLayer& layer, int rank) {
  int part = 0;
  while (rank >= layer.parts[part].first_rank + layer.parts[part].padded_ranks) ++part;
  return part;
}
GRAFT_DEVICE int part_of_output(const LoraLayer& layer, int64_t output) {
  int part = 0;
  while (output >= layer.parts[part].first_output + layer.parts[part].outputs) ++part;
  return part;
}

// z[n, r] = scale * sum over s of partials[s, n, r]: over all splits (windows of z's columns), or over the chunks of the column's part (windows of its own).
template <typename Element, bool kOfParts>
GRAFT_KERNEL(kSumThreads) lora_sum_rows(const LoraLayer layer, const LoraWindow window, const float* partials, void* z_NR) {
  const int64_t index = block_in_grid() * kSumThreads + thread_in_block();
  if (index >= layer.num_rows * layer.ranks) return;
  const int64_t row = index / layer.ranks;
  const int rank = static_cast<int>(index % layer.ranks), number = part_of_rank(layer, rank);
  const LoraPart& part = layer.parts[number];
  const int within = rank - window.first - (kOfParts ? part.first_rank : 0);
  if (within < 0 || within >= window.width) return;
  int begin = 0, end = window.num_splits;
  GRAFT_UNROLL
  for (int i = 0; kOfParts && i < kMostLoraParts; ++i) {   // constant indices: the window needs no copy in memory
    if (i != number) continue;
    begin = window.first_chunk[i];
    end = window.first_chunk[i + 1];
  }
  float sum = 0;
  for (int s = begin; s < end; ++s) sum += load(partials + (s * layer.num_rows + row) * window.width + within);
  store(static_cast<Element*>(z_NR) + index, from_float<Element>(sum * part.scale));
}

// Gradients of a window's factors from partials [splits, columns, width]: of A, columns are inputs and the result is transposed; of B, outputs.
template <bool kOfA>
GRAFT_KERNEL(kSumThreads) lora_sum_factors(const LoraLayer layer, const LoraWindow window, const float* partials) {
  const int64_t columns = kOfA ? layer.inputs : layer.outputs, index = block_in_grid() * kSumThreads + thread_in_block();
  if (index >= columns * window.width) return;
  const int64_t column = index / window.width;
  const int rank = window.first + static_cast<int>(index % window.width);
  if (kOfA && rank >= layer.ranks) return;
  const LoraPart& part = layer.parts[kOfA ? part_of_rank(layer, rank) : part_of_output(layer, column)];
  const int within = kOfA ? rank - part.first_rank : rank;
  if (within >= part.ranks) return;
  float sum = 0;
  for (int s = 0; s < window.num_splits; ++s) sum += load(partials + s * columns * window.width + index);
  store(kOfA ? part.a_gradient_RC + within * layer.inputs + column : part.b_gradient_OR + (column - part.first_output) * part.ranks + within, sum);
}

template <typename Element, bool kOfParts>
void launch_sum_rows(const LoraLayer& layer, const LoraWindow& window, const float* partials, void* z_NR, void* stream) {
  const int64_t blocks = blocks_for(layer.num_rows * layer.ranks);
  if (blocks > 0) LAUNCH((lora_sum_rows<Element, kOfParts>), blocks, kSumThreads, 0, stream, layer, window, partials, z_NR);
}

template <bool kOfA>
void launch_sum_factors(const LoraLayer& layer, const LoraWindow& window, const float* partials, void* stream) {
  LAUNCH(lora_sum_factors<kOfA>, blocks_for((kOfA ? layer.inputs : layer.outputs) * window.width), kSumThreads, 0, stream, layer, window, partials);
}

}  // namespace
}  // namespace graft::cuda
