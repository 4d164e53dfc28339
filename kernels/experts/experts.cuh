// Launch arguments of experts (formula in experts.h). Rows are contiguous; pointers are device memory. N tokens, K experts a token, M = N * K rows sorted by
// expert (expert_lists.cuh), E experts, R ranks of each. Products run by tiles of an expert's rows; nothing is permuted: rows of tokens are gathered as a
// tile is loaded. The low-rank part is what comes last of a product's inner dimension.
//
//   ExpertShrink             z = scale * p A^T                                  and dz = scale * dy B: once for each of both banks
//   ExpertGateUp             h = [p | z] [G | B]^T + bias, q = activation(h)
//   ExpertDown               o = [q | z] [D | B]^T + bias
//   ExpertCombine            y[n] = sum over k of w[n, k] * o[place[n, k]]      in the order of k; without weights: of gradients
//   ExpertDownBackward       dq = [dy | dz] [D ; A];  dh = activation'(h) * w * dq;  q again;  parts of <q, dq> for dw
//   ExpertWeightsBackward    dw = <q, dq> + <bias, dy>
//   ExpertGateUpBackward     dp = [dh | dz] [G ; A]
//   ExpertFactorGradient     dA = dz^T p or dB = dy^T z of every expert
//
// Sums are float32 and have one order: the same bits in every run. Operands of 16 bits are rounded as in the reference; z and dz carry the scale.
#pragma once
#include <cstdint>

#include "kernels/cuda/row_type.cuh"
#include "kernels/gated_activation/gated_activation.cuh"
#include "kernels/router/expert_lists.cuh"

namespace graft::cuda {

constexpr int kMostExpertParts = 2;
// Columns of results that a block has; of them, those of gate and of up that are side by side in one warp.
constexpr int kExpertColumns = 128, kExpertHalf = 32;
constexpr int64_t expert_chunks(int64_t columns) { return (columns + kExpertColumns - 1) / kExpertColumns; }
// Partial sums of <q, dq> a row: one of each warp that has columns of it.
constexpr int64_t expert_weight_partials(int64_t width) { return 2 * expert_chunks(width); }

// Rows of a tile. High tiles read weights less often, but where experts have few rows their products are mostly of nothing.
constexpr int expert_tile_rows(int64_t num_choices, int64_t num_experts) { return num_choices < 96 * num_experts ? 64 : 128; }

// One matrix of every expert, [outputs, inputs], in `parts` equal ones over each other; all in the type of the rows.
struct ExpertMatrices {
  int parts;                       // 1 or 2
  int ranks;                       // 0: no adapter
  int64_t inputs, outputs;
  const void* const* weights;      // [E * parts], device pointers in device memory
  const float* bias_EO;            // null: none
  const void* a_EC;                // [E * R, inputs]
  const void* b_ER;                // [E * outputs, R]
};

// Rows of an operand: of tokens (num_tokens of them), gathered, or of sorted rows.
struct ExpertOperand {
  const void* rows;
  bool gathered;
};

struct ExpertShrink {
  ExpertRows rows;
  RowType type;
  ExpertOperand from;
  const void* factors;             // [E * R, columns], or [E * columns, R] where transposed
  bool transposed;
  int64_t columns;
  int ranks;
  float scale;
  void* z_MR;
};

struct ExpertGateUp {
  ExpertRows rows;
  RowType type;
  ExpertMatrices bank;
  const void* x_NC;
  const void* z_MR;
  GatedActivationRows::Kind activation;   // kSwiGlu or kClampedSwiGlu
  float alpha, limit;
  void* h_MO;
  void* q_MI;
};

struct ExpertDown {
  ExpertRows rows;
  RowType type;
  ExpertMatrices bank;
  const void* q_MI;
  const void* z_MR;
  void* o_MC;
};

struct ExpertDownBackward {
  ExpertRows rows;
  RowType type;
  ExpertMatrices bank;
  const void* dy_NC;
  const void* dz_MR;               // without the router's weights
  const float* weights_NK;
  const void* h_MO;
  GatedActivationRows::Kind activation;
  float alpha, limit;
  void* dh_MO;
  void* q_MI;
  float* weight_partials;          // [expert_weight_partials, M]
};

struct ExpertGateUpBackward {
  ExpertRows rows;
  RowType type;
  ExpertMatrices bank;
  const void* dh_MO;
  const void* dz_MR;
  void* dp_MC;
};

struct ExpertFactorGradient {
  ExpertRows rows;
  RowType type;
  ExpertOperand wide;              // [.., columns]: p of A, dy of B
  int64_t columns;
  const void* narrow_MR;           // dz of A, z of B
  const float* weights_NK;         // by which narrow rows are multiplied; null: none
  int ranks;
  bool of_a;                       // the gradient is [E * R, columns], else [E * columns, R]
  float* partials;                 // [num_spans, columns, window] (expert_window), for a while
  float* gradient;
};
// Ranks that one launch of the kernels of a factor takes; more are several launches.
constexpr int expert_window(int ranks) { return ranks <= 16 ? 16 : ranks <= 32 ? 32 : 64; }

struct ExpertCombine {
  ExpertRows rows;
  RowType type;
  int64_t columns;
  const void* rows_MC;
  const float* weights_NK;         // null: 1 each
  void* y_NC;
};

struct ExpertWeightsBackward {
  ExpertRows rows;
  RowType type;
  const float* weight_partials;
  int num_partials;
  const float* bias_EC;            // of ExpertDown; null: none
  const void* dy_NC;
  int64_t columns;
  float* dweights_NK;
};

// Null, or the driver's words. `stream` is a cudaStream_t.
const char* launch(const ExpertShrink& arguments, void* stream);
const char* launch(const ExpertGateUp& arguments, void* stream);
const char* launch(const ExpertDown& arguments, void* stream);
const char* launch(const ExpertDownBackward& arguments, void* stream);
const char* launch(const ExpertGateUpBackward& arguments, void* stream);
const char* launch(const ExpertFactorGradient& arguments, void* stream);
const char* launch(const ExpertCombine& arguments, void* stream);
const char* launch(const ExpertWeightsBackward& arguments, void* stream);

}  // namespace graft::cuda
