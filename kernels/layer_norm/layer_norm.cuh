// Launch arguments of layer norm (formula in layer_norm.h).
#pragma once
#include "kernels/norm_rows/norm_rows.cuh"

namespace graft::cuda {

struct LayerNormForward {
  NormForward of;
  const float* bias_C;
  float* mean_N;
};
struct LayerNormBackward {
  NormBackward of;
  const float* mean_N;
};

// Null, or the driver's words. `stream` is a cudaStream_t.
const char* launch(const LayerNormForward& arguments, void* stream);
const char* launch(const LayerNormBackward& arguments, void* stream);

}  // namespace graft::cuda
