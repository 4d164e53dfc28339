// Launch arguments of RMS norm (formula in rms_norm.h).
#pragma once
#include "kernels/norm_rows/norm_rows.cuh"

namespace graft::cuda {

struct RmsNormForward {
  NormForward of;
};
struct RmsNormBackward {
  NormBackward of;
};

// Null, or the driver's words. `stream` is a cudaStream_t.
const char* launch(const RmsNormForward& arguments, void* stream);
const char* launch(const RmsNormBackward& arguments, void* stream);

}  // namespace graft::cuda
