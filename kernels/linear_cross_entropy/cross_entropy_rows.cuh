// Launch arguments of the cross-entropy of rows of logits (formula in linear_cross_entropy.h). Pointers are device memory.
#pragma once
#include "kernels/linear_head/logit_rows.cuh"

namespace graft::cuda {

struct CrossEntropyRows {
  LogitRows logits;
  const int32_t* labels_B;   // 0 .. width - 1
  const float* scales_B;     // what each row's gradient is multiplied by; null: logits stay
  float* losses_B;
  float* log_sums_B;         // logsumexp
  int32_t* correct_B;        // the label has the highest logit
  int64_t num_rows;
  float z_loss, label_smoothing;
};

// Null, or what is wrong, in the driver's words or ours. `stream` is a cudaStream_t.
const char* launch(const CrossEntropyRows& arguments, void* stream);

}  // namespace graft::cuda
