#include "kernels/quantized/round_to_bf16.h"

#include "kernels/quantized/simd_clones.h"
#include "kernels/quantized/small_floats.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace graft {

namespace {

GRAFT_SIMD_CLONES void round_portable(const float* source, int64_t size, uint16_t* destination) {
  for (int64_t i = 0; i < size; ++i) destination[i] = float_to_bf16(source[i]);
}

#if defined(__x86_64__)
// VCVTNE2PS2BF16: 32 numbers at a time. It would make denormals zero.
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16"))) void round_avx512(const float* source, int64_t size, uint16_t* destination) {
  int64_t i = 0;
  for (; i + 32 <= size; i += 32) {
    constexpr int kDenormal = 0x20;
    const __m512 low = _mm512_loadu_ps(source + i), high = _mm512_loadu_ps(source + i + 16);
    if (_mm512_fpclass_ps_mask(low, kDenormal) | _mm512_fpclass_ps_mask(high, kDenormal)) {
      round_portable(source + i, 32, destination + i);
      continue;
    }
    const __m512bh pair = _mm512_cvtne2ps_pbh(high, low);
    _mm512_storeu_si512(destination + i, reinterpret_cast<const __m512i&>(pair));
  }
  round_portable(source + i, size - i, destination + i);
}

bool has_instruction() {
  static const bool there = __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return there;
}
#endif

}  // namespace

void round_to_bf16(const float* source, int64_t size, uint16_t* destination) {
#if defined(__x86_64__)
  if (has_instruction()) return round_avx512(source, size, destination);
#endif
  round_portable(source, size, destination);
}

}  // namespace graft
