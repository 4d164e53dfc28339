// Launch arguments of AdamW (formula in adamw.h). Pointers are device memory, at multiples of 16 bytes.
#pragma once
#include <cstdint>

namespace graft::cuda {

struct AdamWUpdate {
  const float* gradients;
  float* parameters;
  float* first_moment;
  float* second_moment;
  int64_t size;
  double* partial_sums;   // adamw_blocks(size) of them
  double* norm;           // out: of the gradients, before clipping. Not finite: nothing is updated
  double clip;            // 0: none
  float beta1, beta2, epsilon;
  float step_size, correction, keep;
};

// Blocks of 256 threads that walk over the buffer: enough to fill the largest GPU, few enough that each may add up all their sums again.
constexpr int64_t adamw_blocks(int64_t size) {
  const int64_t blocks = (size + 4095) / 4096;
  return blocks < 1 ? 1 : blocks < 1024 ? blocks : 1024;
}

// Null, or the driver's words. `stream` is a cudaStream_t.
const char* launch(const AdamWUpdate& arguments, void* stream);

}  // namespace graft::cuda
