#include "kernels/matrix_product/bf16_tile_product.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <utility>

#include "kernels/matrix_product/tile_product.h"
#include "kernels/quantized/simd_clones.h"
#include "kernels/quantized/small_floats.h"

#if defined(__x86_64__)
#include "kernels/matrix_product/avx512_sums.h"
#endif

namespace graft {
namespace {

#if defined(__x86_64__)
#define GRAFT_TARGET_BF16 target("avx512f,avx512bw,avx512vl,avx512bf16")

__attribute__((GRAFT_TARGET_BF16, always_inline)) inline __m512 multiply_pairs(__m512 sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

template <int kRows, int kVectors>
__attribute__((GRAFT_TARGET_BF16)) void tile_avx512(const uint16_t* a, int64_t a_row_stride, const uint32_t* panel, int64_t depth, float* c,
                                                    int64_t c_row_stride, int64_t columns, bool accumulate) {
  Avx512Sums<kRows, kVectors> sums;
  sums.clear();
  const auto step = [&](int64_t pair, int bytes) __attribute__((always_inline, GRAFT_TARGET_BF16)) {
    __m512i b[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) b[v] = _mm512_load_si512(panel + 16 * (pair * kVectors + v));
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      uint32_t word = 0;
      std::memcpy(&word, a + r * a_row_stride + 2 * pair, bytes);
      const __m512i value = _mm512_set1_epi32(static_cast<int>(word));
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums.values[r][v] = multiply_pairs(sums.values[r][v], value, b[v]);
    }
  };
  prefetch_next_rows<kRows, kVectors>(c, c_row_stride);
  const int64_t pairs = depth / 2;
  int64_t k = 0;
  for (; k + 16 <= pairs; k += 16) {
    for (int r = 0; r < kRows; ++r) __builtin_prefetch(a + (kRows + r) * a_row_stride + 2 * k);
    for (int64_t i = 0; i < 16; ++i) step(k + i, 4);
  }
  for (; k < pairs; ++k) step(k, 4);
  if (depth % 2 != 0) step(k, 2);
  sums.store(c, c_row_stride, columns, accumulate);
}

using Avx512Tile = void (*)(const uint16_t*, int64_t, const uint32_t*, int64_t, float*, int64_t, int64_t, bool);
template <int... kIndex>
constexpr std::array<Avx512Tile, sizeof...(kIndex)> avx512_tiles(std::integer_sequence<int, kIndex...>) {
  return {tile_avx512<kIndex / 4 + 1, kIndex % 4 + 1>...};
}

void product_avx512(const uint16_t* a, int64_t a_row_stride, int64_t rows, const uint32_t* panel, int64_t panel_width, int64_t depth, float* c,
                    int64_t c_row_stride, int64_t columns, bool accumulate) {
  static constexpr auto kTiles = avx512_tiles(std::make_integer_sequence<int, kTileRows * 4>());
  kTiles[(rows - 1) * 4 + panel_width / 16 - 1](a, a_row_stride, panel, depth, c, c_row_stride, columns, accumulate);
}

#endif

// A product of two bfloat16 is exact in float32, so that only the order of the sums decides: the upper element of a pair first, as the instruction does.
void product_portable(const uint16_t* a, int64_t a_row_stride, int64_t rows, const uint32_t* panel, int64_t panel_width, int64_t depth, float* c,
                      int64_t c_row_stride, int64_t columns, bool accumulate) {
  for (int64_t r = 0; r < rows; ++r) {
    const uint16_t* row = a + r * a_row_stride;
    for (int64_t first = 0; first < columns; first += 16) {
      float sums[16] = {};
      for (int64_t k = 0; k < depth; k += 2) {
        const float even = bf16_to_float(row[k]), odd = k + 1 < depth ? bf16_to_float(row[k + 1]) : 0.0f;
        const uint32_t* words = panel + k / 2 * panel_width + first;
        for (int j = 0; j < 16; ++j) {
          sums[j] += odd * bf16_to_float(static_cast<uint16_t>(words[j] >> 16));
          sums[j] += even * bf16_to_float(static_cast<uint16_t>(words[j]));
        }
      }
      for (int64_t j = 0; j < std::min<int64_t>(16, columns - first); ++j) {
        float& target = c[r * c_row_stride + first + j];
        target = accumulate ? target + sums[j] : sums[j];
      }
    }
  }
}

std::atomic<bool>& bf16_switch() {
  static std::atomic<bool> on{bf16_tile_product_avx512() != nullptr};
  return on;
}

}  // namespace

Bf16TileProduct bf16_tile_product_avx512() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) return product_avx512;
#endif
  return nullptr;
}

Bf16TileProduct bf16_tile_product_portable() { return product_portable; }

Bf16TileProduct bf16_tile_product() {
  static const Bf16TileProduct fastest = bf16_tile_product_avx512() ? bf16_tile_product_avx512() : product_portable;
  return fastest;
}

bool multiplies_in_bf16() { return bf16_switch(); }
void set_multiplies_in_bf16(bool on) { bf16_switch() = on; }

GRAFT_SIMD_CLONES void interleave(const uint16_t* __restrict even, const uint16_t* __restrict odd, int64_t count, uint32_t* __restrict words) {
  for (int64_t i = 0; i < count; ++i) words[i] = even[i] | static_cast<uint32_t>(odd[i]) << 16;
}

}  // namespace graft
