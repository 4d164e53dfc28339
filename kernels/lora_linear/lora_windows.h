// How the low-rank products of a layer are cut into launches and blocks. A pure function of sizes, the same on every GPU; no Torch.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/lora_linear/lora_linear.cuh"

namespace graft {

enum class LoraPass { kShrink, kExpand, kExpandBackward, kShrinkBackward };

// Most ranks that one launch takes.
int lora_most_ranks(LoraPass pass, bool is_float32);

// Windows that cover all ranks, most often one. None where the pass has nothing to do.
std::vector<cuda::LoraWindow> lora_windows(LoraPass pass, const cuda::LoraLayer& layer);

// Floats that partial sums of a window take: those along rows (z_partials, or LoraShrink's) and those of factors (a_partials, b_partials).
int64_t lora_row_partials(LoraPass pass, const cuda::LoraLayer& layer, const cuda::LoraWindow& window);
int64_t lora_factor_partials(LoraPass pass, const cuda::LoraLayer& layer, const cuda::LoraWindow& window);

// Of LoraMask: kept are randoms of 53 bits that are at least this, a share of 1 - probability of all.
uint64_t lora_threshold(double probability);

}  // namespace graft
