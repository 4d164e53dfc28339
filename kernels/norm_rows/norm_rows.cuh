// What RMS norm and layer norm have in common of launch arguments. Rows are contiguous; pointers are device memory, at multiples of 16 bytes.
#pragma once
#include <cstdint>

#include "kernels/cuda/row_type.cuh"

namespace graft::cuda {

struct NormForward {
  const void* x_NC;
  const void* residual_NC;     // null: none
  void* sum_NC;                // x + residual, rounded to the rows' type: what is normed. Null without a residual
  const float* weight_C;
  void* y_NC;
  float* inverse_N;            // 1 / RMS, or 1 / standard deviation
  int64_t num_rows;
  int width;
  float epsilon;
  bool rounds_before_weight;   // y = round(weight * round(normed)), or round(weight * normed)
  RowType type;                // of x, residual, sum and y
};

struct NormBackward {
  const void* gradient_NC;     // of y
  const void* sum_gradient_NC; // of the sum, which dx takes up. Null: none
  const void* x_NC;            // what was normed
  const float* weight_C;
  const float* inverse_N;
  void* dx_NC;                 // of x, and of the residual
  int64_t num_rows;
  int width;
  RowType type;                // of gradients, x and dx
};

// How a row is shared out: so that each thread has a few accesses of 16 bytes under way, and keeps what it read.
struct NormShape {
  int threads;       // of a row: 32, 128, 256 or 512
  bool keeps;        // in registers
  bool wide_packs;   // accesses of 16 bytes, or of one element where a row has no whole number of those
};
constexpr int kNormPacks = 2;   // that a thread keeps: with more, fewer rows are under way at once
constexpr NormShape norm_shape(int width, int elements_of_pack) {
  if (width % elements_of_pack != 0) return {128, false, false};
  const int packs = width / elements_of_pack;
  if (packs <= 32 * kNormPacks) return {32, true, true};
  if (packs <= 128 * kNormPacks) return {128, true, true};
  if (packs <= 256 * kNormPacks) return {256, true, true};
  return {512, packs <= 512 * kNormPacks, true};
}

}  // namespace graft::cuda
