// Launch arguments of RMS norm (formula in rms_norm.h). Rows are contiguous; pointers are device memory.
#pragma once
#include <cstdint>

namespace graft::cuda {

enum class RowType { kFloat32, kBfloat16 };

struct RmsNormForward {
  const void* x_NC;
  const float* weight_C;
  void* y_NC;
  float* inverse_rms_N;
  int64_t num_rows;
  int width;
  float epsilon;
  RowType type;   // of x and y
};

struct RmsNormBackward {
  const void* gradient_NC;
  const void* x_NC;
  const float* weight_C;
  const float* inverse_rms_N;
  void* dx_NC;
  int64_t num_rows;
  int width;
  RowType type;   // of gradient, x and dx
};

// Threads for one row: the fewest warps that leave a thread at most 16 elements, at most 512 threads.
inline int rms_norm_threads(int width) { return width <= 512 ? 32 : width <= 2048 ? 128 : 512; }

// Null, or the driver's words. `stream` is a cudaStream_t.
const char* launch(const RmsNormForward& arguments, void* stream);
const char* launch(const RmsNormBackward& arguments, void* stream);

}  // namespace graft::cuda
