// Products with frozen weights in the form they are stored in, quantised or plain, decoded a panel at a time into the cache and never as a whole:
//
//   forward:   y[N, O] = p[N, E] M^T        M = [W | B]: the rows of all parts over each other; E = inputs + ranks
//   backward:  dp[N, E] = dy[N, O] M
//
// B holds each part's LoRA factor in that part's own columns and zeros elsewhere, so that the low-rank product rides in the same pass.
// Sums in float32; an element is the sum, in order, of chains of 256 multiply-adds along the inner dimension (one chain over a vocabulary would round
// ten times worse): a row's result does not depend on the rows beside it, on the number of threads or on the vector width (tile_product.h). CPU.
// Element: float, or uint16_t for bfloat16: then M is rounded to bfloat16 too, as every product in that type rounds its operands.
#pragma once
#include <cstdint>
#include <span>

#include "kernels/frozen_weight/frozen_weight.h"

namespace graft {

struct FrozenPart {
  const FrozenWeight* weight = nullptr;   // all parts have the same number of columns
  const float* lora_b_OR = nullptr;       // [weight rows, rank], contiguous; null: rank 0
  int64_t rank = 0;
};

template <typename Element>
void frozen_product(int64_t num_rows, const Element* p_NE, int64_t p_row_stride, std::span<const FrozenPart> parts, float* y_NO, int64_t y_row_stride);
// The same plus bias_O (or null), rounded to bfloat16 while it is in the cache.
template <typename Element>
void frozen_product_to_bf16(int64_t num_rows, const Element* p_NE, int64_t p_row_stride, std::span<const FrozenPart> parts, const float* bias_O, uint16_t* y_NO,
                            int64_t y_row_stride);
// accumulate: dp += instead of dp =. Rows of M that come in several calls give the bits of one call when each but the last has a multiple of 256.
template <typename Element>
void frozen_product_backward(int64_t num_rows, const Element* dy_NO, int64_t dy_row_stride, std::span<const FrozenPart> parts, float* dp_NE,
                             int64_t dp_row_stride, bool accumulate = false);

// A row stride for scratch of `columns` floats: whole cache lines, an odd number of them, so that rows do not all fall into the same cache sets
// (as they do at 3,072 or 49,152 columns).
constexpr int64_t scratch_row_stride(int64_t columns) { return ((columns + 15) / 16 | 1) * 16; }

}  // namespace graft
