// A block of logits as kernels of losses take it: they overwrite rows by their gradient. Pointers are device memory.
#pragma once
#include <cstdint>

namespace graft::cuda {

// In float32, gradients too, or, for a product in bfloat16, gradients in bfloat16 in the first half of each row's memory; or all in bfloat16.
enum class LogitType { kFloat32, kFloat32ToBfloat16, kBfloat16 };

struct LogitRows {
  void* rows_BV;      // at a multiple of 16 bytes
  int64_t stride;     // of rows, in elements, a multiple of 8
  int width;          // V
  float softcap;      // 0: none. Rows hold logits without it, gradients go through it
  LogitType type;
};

// Why kernels cannot take these rows, or null.
inline const char* problem_of(const LogitRows& logits) {
  if (logits.width < 1 || logits.stride < logits.width) return "expected rows of at least one logit that do not overlap";
  if (logits.stride % 8 != 0 || reinterpret_cast<uintptr_t>(logits.rows_BV) % 16 != 0) return "expected rows of logits at multiples of 16 bytes, and of 8 elements from each other";
  return nullptr;
}

}  // namespace graft::cuda
