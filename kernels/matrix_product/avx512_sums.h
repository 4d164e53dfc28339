// The accumulators of one tile in AVX-512 registers: what the tiles of float32 and of bfloat16 share around their steps. For x86-64 only.
#pragma once
#include <algorithm>
#include <cstdint>

#include <immintrin.h>

namespace graft {

// kRows * kVectors accumulators stay in registers: 6 * 4 of the 32, beside 4 of the panel and one broadcast.
template <int kRows, int kVectors>
struct Avx512Sums {
  __m512 values[kRows][kVectors];

  __attribute__((target("avx512f"), always_inline)) inline void clear() {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) values[r][v] = _mm512_setzero_ps();
    }
  }

  // c[kRows, columns] (+)= values
  __attribute__((target("avx512f"), always_inline)) inline void store(float* c, int64_t c_row_stride, int64_t columns, bool accumulate) const {
    __mmask16 mask[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      const int64_t left = std::clamp<int64_t>(columns - 16 * v, 0, 16);
      mask[v] = static_cast<__mmask16>((1u << left) - 1);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        float* target = c + r * c_row_stride + 16 * v;
        const __m512 sum = accumulate ? _mm512_add_ps(_mm512_maskz_loadu_ps(mask[v], target), values[r][v]) : values[r][v];
        _mm512_mask_storeu_ps(target, mask[v], sum);
      }
    }
  }
};

// The rows that come next are fetched while these are multiplied: short pieces of rows far apart, which the hardware does not foresee.
template <int kRows, int kVectors>
__attribute__((always_inline)) inline void prefetch_next_rows(const float* c, int64_t c_row_stride) {
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) __builtin_prefetch(c + (kRows + r) * c_row_stride + 16 * v, 1);
  }
}

}  // namespace graft
