// Launch arguments of gated activations (formulas in gated_activation.h). Rows are contiguous; pointers are device memory, at multiples of 16 bytes.
#pragma once
#include <cstdint>

#include "kernels/cuda/row_type.cuh"

namespace graft::cuda {

struct GatedActivationRows {
  enum class Kind { kSwiGlu, kGeluTanhGated, kClampedSwiGlu, kGeluTanh };
  const void* x;         // [N, 2I], of kGeluTanh [N, I]
  int64_t num_rows;
  int width;             // I
  Kind kind;
  bool interleaved;      // a row is gate, up, gate, up, ...; else all gates, then all ups
  float alpha, limit;    // of kClampedSwiGlu
  RowType type;          // of x, y and their gradients
};

struct GatedActivationForward {
  GatedActivationRows of;
  void* y_NI;
};

struct GatedActivationBackward {
  GatedActivationRows of;
  const void* gradient_NI;
  void* dx;
};

// Null, or the driver's words. `stream` is a cudaStream_t.
const char* launch(const GatedActivationForward& arguments, void* stream);
const char* launch(const GatedActivationBackward& arguments, void* stream);

}  // namespace graft::cuda
