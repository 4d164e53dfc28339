// Launch arguments of divergences between rows of logits (formulas in linear_kl.h; losses without T^2). Pointers are device memory.
#pragma once
#include "kernels/linear_head/logit_rows.cuh"
#include "kernels/linear_kl/divergence.h"

namespace graft::cuda {

struct KlProblem {
  LogitRows student;          // become the gradient, or with no scales are left as scratch
  const float* scales_B;      // what each row's d loss / d (logits / T) is multiplied by; null: no gradient
  float* losses_B;
  int64_t num_rows;
  Divergence divergence;
  float temperature, inverse_temperature;
  float teacher_weight = 0.5F, teacher_part = 0.5F, mixture_slope = 0;   // of kMixture: Mixture
};

// The teacher by logits, of the student's width and in the type that the student's come in.
struct KlRows {
  KlProblem problem;
  LogitRows teacher;          // only read
};

// By entries at temperature T and the rest's log-probability, minus infinity where there is none. An id below 0 is no entry.
struct SparseKlRows {
  KlProblem problem;
  const int32_t* ids_BK;
  const float* log_probabilities_BK;
  const float* log_tails_B;
  int num_entries;            // K
};

constexpr int kMostSparseEntries = 2048;   // their logits lie in shared memory

// Null, or what is wrong, in the driver's words or ours. `stream` is a cudaStream_t.
const char* launch(const KlRows& arguments, void* stream);
const char* launch(const SparseKlRows& arguments, void* stream);

}  // namespace graft::cuda
