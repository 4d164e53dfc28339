// Launch arguments of the low-rank part of LoRA linear layers (formula in lora_linear.h); products with frozen weights: quantized_product.h. Rows are contiguous,
// pointers are device memory at multiples of 16 bytes. N rows, C inputs, O outputs of all parts, R ranks of all parts.
//
//   LoraShrink           z = scale * dropout(p) A^T
//   LoraExpand           y = z B^T + bias; += in windows but the first
//   LoraExpandBackward   dz = scale * dy B;  dB = dy^T z               one read of dy
//   LoraShrinkBackward   dp = dropout(dz A), += likewise;  dA = dz^T dropout(p)    one read of p
//
// They come before the products with frozen weights, which add to y and dp in their last step: so nobody reads those for the low-rank part's sake. Columns of y of
// parts that have neither adapter nor bias are left alone.
//
// Sums are float32 and have one order: the same bits in every run. z and dz are rounded to the type of the rows, and carry the scale.
#pragma once
#include <cstdint>

#include "kernels/cuda/row_type.cuh"

namespace graft::cuda {

constexpr int kMostLoraParts = 8;
// A part's columns of z begin at a multiple of this, so that rows of z, and of factors that end at one, are whole 16 bytes; between parts there are zeros.
constexpr int kLoraStep = 8;
constexpr int64_t lora_padded(int64_t count) { return (count + kLoraStep - 1) / kLoraStep * kLoraStep; }

struct LoraPart {
  int64_t first_output, outputs;   // columns of y
  int first_rank, ranks;           // columns of z; ranks 0: no adapter
  int padded_ranks;                // what the next part's begin behind
  float scale;
  const float* a_RC;
  const float* b_OR;
  const float* bias_O;             // null: none
  float* a_gradient_RC;            // written by the backward passes
  float* b_gradient_OR;
};

// An element (row, column) of dropout(p) is p's times `factor` where the highest 53 bits of its random (dropout_factor of lora_linear.cpp) are at least
// `threshold`, else 0.
struct LoraMask {
  const int64_t* row_keys_N;       // null: no dropout
  uint64_t key, threshold;
  float factor;
};

// Parts come last, and no padding comes behind them (nor in LoraWindow): GCC 12 with -ftrivial-auto-var-init=pattern, as the emulator is compiled, clears
// padding behind an array at a wrong place.
struct LoraLayer {
  int num_parts;
  RowType type;                   // of p, y, z, their gradients and the rounded factors
  int64_t num_rows, inputs, outputs;
  int ranks;                       // of all parts, each padded: the width of z
  int b_stride;                    // padded ranks of the part with most
  LoraMask mask;
  void* a_RC;                      // rounded factors, by LoraFactors: [ranks, lora_padded(inputs)], zeros behind a part's ranks and behind the inputs
  void* b_OR;                      // [outputs, b_stride], likewise
  LoraPart parts[kMostLoraParts];
};

// What one launch does (lora_windows.h): ranks [first, first + width), of z's columns or of each part's own.
struct LoraWindow {
  int first, width;
  int num_chunks;                  // of columns of p or y, one a block; first_chunk[i]: of part i, where parts have chunks of their own
  int first_chunk[kMostLoraParts + 1];
  int num_splits;                  // blocks that share a sum: over columns in LoraShrink, over rows elsewhere
  int split;                       // what each of them goes through: columns, or tiles of rows
};

// Rows of a tile; columns of p that LoraShrink goes through at a time.
constexpr int kLoraShrinkRows = 128, kLoraShrinkColumns = 64, kLoraRows = 64;
// Columns of a block's chunk: as many as leave registers for the sums and shared memory below 99 KiB.
constexpr int lora_columns(bool is_float32, int width) { return is_float32 || width > 64 ? 64 : 128; }
constexpr int lora_expand_backward_columns(bool is_float32, int width) {
  return width <= 16 ? 512 : width <= 32 ? (is_float32 ? 256 : 512) : is_float32 ? 128 : 256;
}

// The factors of all parts, rounded and padded.
struct LoraFactors {
  LoraLayer layer;
};

struct LoraShrink {
  LoraLayer layer;
  LoraWindow window;
  const void* p_NC;
  void* z_NR;
  float* partials;                 // [splits, N, width] where there are several splits
};

struct LoraExpand {
  LoraLayer layer;
  LoraWindow window;
  const void* z_NR;
  void* y_NO;
};

struct LoraExpandBackward {
  LoraLayer layer;
  LoraWindow window;
  const void* y_gradient_NO;
  const void* z_NR;
  void* z_gradient_NR;
  float* z_partials;               // [chunks, N, width]
  float* b_partials;               // [splits, O, width]
};

struct LoraShrinkBackward {
  LoraLayer layer;
  LoraWindow window;
  const void* z_gradient_NR;
  const void* p_NC;
  void* p_gradient_NC;             // null: not wanted
  float* a_partials;               // [splits, C, width]
};

// Null, or the driver's words. `stream` is a cudaStream_t.
const char* launch(const LoraFactors& arguments, void* stream);
const char* launch(const LoraShrink& arguments, void* stream);
const char* launch(const LoraExpand& arguments, void* stream);
const char* launch(const LoraExpandBackward& arguments, void* stream);
const char* launch(const LoraShrinkBackward& arguments, void* stream);

}  // namespace graft::cuda
