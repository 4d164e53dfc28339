#include "kernels/matrix_product/tile_product.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <utility>

#if defined(__x86_64__)
#include "kernels/matrix_product/avx512_sums.h"
#endif

namespace graft {
namespace {

#if defined(__x86_64__)

template <int kRows, int kVectors>
__attribute__((target("avx512f"))) void tile_avx512(const float* a, int64_t a_row_stride, const float* panel, int64_t depth, float* c,
                                                    int64_t c_row_stride, int64_t columns, bool accumulate) {
  Avx512Sums<kRows, kVectors> sums;
  sums.clear();
  const auto step = [&](int64_t k) __attribute__((always_inline, target("avx512f"))) {
    __m512 b[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) b[v] = _mm512_load_ps(panel + 16 * (k * kVectors + v));
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m512 value = _mm512_set1_ps(a[r * a_row_stride + k]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums.values[r][v] = _mm512_fmadd_ps(value, b[v], sums.values[r][v]);
    }
  };
  prefetch_next_rows<kRows, kVectors>(c, c_row_stride);
  int64_t k = 0;
  for (; k + 16 <= depth; k += 16) {
    for (int r = 0; r < kRows; ++r) __builtin_prefetch(a + (kRows + r) * a_row_stride + k);
    for (int64_t i = 0; i < 16; ++i) step(k + i);
  }
  for (; k < depth; ++k) step(k);
  sums.store(c, c_row_stride, columns, accumulate);
}

using Avx512Tile = void (*)(const float*, int64_t, const float*, int64_t, float*, int64_t, int64_t, bool);
template <int... kIndex>
constexpr std::array<Avx512Tile, sizeof...(kIndex)> avx512_tiles(std::integer_sequence<int, kIndex...>) {
  return {tile_avx512<kIndex / 4 + 1, kIndex % 4 + 1>...};
}

void product_avx512(const float* a, int64_t a_row_stride, int64_t rows, const float* panel, int64_t panel_width, int64_t depth, float* c,
                    int64_t c_row_stride, int64_t columns, bool accumulate) {
  static constexpr auto kTiles = avx512_tiles(std::make_integer_sequence<int, kTileRows * 4>());
  kTiles[(rows - 1) * 4 + panel_width / 16 - 1](a, a_row_stride, panel, depth, c, c_row_stride, columns, accumulate);
}

// 16 columns at a time: 6 * 2 of the 16 registers.
template <int kRows>
__attribute__((target("avx2,fma"))) void tile_avx2(const float* a, int64_t a_row_stride, const float* panel, int64_t panel_width, int64_t depth,
                                                   float* c, int64_t c_row_stride, int64_t columns, bool accumulate) {
  alignas(32) float edge[kRows * 16];
  for (int64_t first = 0; first < columns; first += 16) {
    const int64_t count = std::min<int64_t>(16, columns - first);
    float* target = c + first;
    int64_t stride = c_row_stride;
    if (count < 16) {
      target = edge;
      stride = 16;
      for (int r = 0; r < kRows; ++r) std::copy_n(c + r * c_row_stride + first, accumulate ? count : 0, edge + 16 * r);
    }
    __m256 sums[kRows][2];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      sums[r][0] = sums[r][1] = _mm256_setzero_ps();
    }
    for (int64_t k = 0; k < depth; ++k) {
      const __m256 low = _mm256_load_ps(panel + k * panel_width + first), high = _mm256_load_ps(panel + k * panel_width + first + 8);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const __m256 value = _mm256_set1_ps(a[r * a_row_stride + k]);
        sums[r][0] = _mm256_fmadd_ps(value, low, sums[r][0]);
        sums[r][1] = _mm256_fmadd_ps(value, high, sums[r][1]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      if (accumulate) {
        sums[r][0] = _mm256_add_ps(_mm256_loadu_ps(target + r * stride), sums[r][0]);
        sums[r][1] = _mm256_add_ps(_mm256_loadu_ps(target + r * stride + 8), sums[r][1]);
      }
      _mm256_storeu_ps(target + r * stride, sums[r][0]);
      _mm256_storeu_ps(target + r * stride + 8, sums[r][1]);
    }
    if (count < 16) {
      for (int r = 0; r < kRows; ++r) std::copy_n(edge + 16 * r, count, c + r * c_row_stride + first);
    }
  }
}

void product_avx2(const float* a, int64_t a_row_stride, int64_t rows, const float* panel, int64_t panel_width, int64_t depth, float* c,
                  int64_t c_row_stride, int64_t columns, bool accumulate) {
  using Tile = void (*)(const float*, int64_t, const float*, int64_t, int64_t, float*, int64_t, int64_t, bool);
  static constexpr Tile kTiles[kTileRows] = {tile_avx2<1>, tile_avx2<2>, tile_avx2<3>, tile_avx2<4>, tile_avx2<5>, tile_avx2<6>};
  kTiles[rows - 1](a, a_row_stride, panel, panel_width, depth, c, c_row_stride, columns, accumulate);
}

__attribute__((target("avx512f"), always_inline)) inline __m512 low_pairs(__m512 x, __m512 y) {
  return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(x), _mm512_castps_pd(y)));
}

__attribute__((target("avx512f"), always_inline)) inline __m512 high_pairs(__m512 x, __m512 y) {
  return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(x), _mm512_castps_pd(y)));
}

__attribute__((target("avx512f"))) void transpose_16x16(const std::byte* source, int64_t source_stride_bytes, float* destination,
                                                         int64_t destination_stride) {
  __m512 rows[16], pairs[16];
  for (int i = 0; i < 16; ++i) rows[i] = _mm512_loadu_ps(source + i * source_stride_bytes);
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {   // rows[i + j]: of source rows i to i + 3, columns j, 4 + j, 8 + j, 12 + j
    rows[i] = low_pairs(pairs[i], pairs[i + 2]);
    rows[i + 1] = high_pairs(pairs[i], pairs[i + 2]);
    rows[i + 2] = low_pairs(pairs[i + 1], pairs[i + 3]);
    rows[i + 3] = high_pairs(pairs[i + 1], pairs[i + 3]);
  }
  for (int j = 0; j < 4; ++j) {
    const __m512 a = _mm512_shuffle_f32x4(rows[j], rows[4 + j], 0x88), b = _mm512_shuffle_f32x4(rows[8 + j], rows[12 + j], 0x88);
    const __m512 c = _mm512_shuffle_f32x4(rows[j], rows[4 + j], 0xdd), d = _mm512_shuffle_f32x4(rows[8 + j], rows[12 + j], 0xdd);
    _mm512_storeu_ps(destination + j * destination_stride, _mm512_shuffle_f32x4(a, b, 0x88));
    _mm512_storeu_ps(destination + (4 + j) * destination_stride, _mm512_shuffle_f32x4(c, d, 0x88));
    _mm512_storeu_ps(destination + (8 + j) * destination_stride, _mm512_shuffle_f32x4(a, b, 0xdd));
    _mm512_storeu_ps(destination + (12 + j) * destination_stride, _mm512_shuffle_f32x4(c, d, 0xdd));
  }
}

#endif

void product_portable(const float* a, int64_t a_row_stride, int64_t rows, const float* panel, int64_t panel_width, int64_t depth, float* c,
                      int64_t c_row_stride, int64_t columns, bool accumulate) {
  for (int64_t first = 0; first < columns; first += 16) {
    const int64_t count = std::min<int64_t>(16, columns - first);
    float sums[kTileRows][16] = {};
    for (int64_t k = 0; k < depth; ++k) {
      const float* b = panel + k * panel_width + first;
      for (int64_t r = 0; r < rows; ++r) {
        const float value = a[r * a_row_stride + k];
        for (int j = 0; j < 16; ++j) sums[r][j] += value * b[j];
      }
    }
    for (int64_t r = 0; r < rows; ++r) {
      float* target = c + r * c_row_stride + first;
      for (int64_t j = 0; j < count; ++j) target[j] = accumulate ? target[j] + sums[r][j] : sums[r][j];
    }
  }
}

}  // namespace

TileProduct tile_product_avx512() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return product_avx512;
#endif
  return nullptr;
}

TileProduct tile_product_avx2() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return product_avx2;
#endif
  return nullptr;
}

TileProduct tile_product_portable() { return product_portable; }

TileProduct tile_product() {
  static const TileProduct fastest = tile_product_avx512() ? tile_product_avx512() : tile_product_avx2() ? tile_product_avx2() : product_portable;
  return fastest;
}

void transpose_words(const void* source, int64_t source_stride_bytes, int64_t rows, int64_t columns, void* destination, int64_t destination_stride) {
  const auto* from = static_cast<const std::byte*>(source);
  auto* to = static_cast<std::byte*>(destination);
  int64_t done = 0;
#if defined(__x86_64__)
  static const bool avx512 = tile_product_avx512() != nullptr;
  if (avx512) {
    for (; done + 16 <= columns; done += 16) {
      for (int64_t row = 0; row < rows; row += 16) {
        transpose_16x16(from + row * source_stride_bytes + 4 * done, source_stride_bytes, reinterpret_cast<float*>(to) + done * destination_stride + row,
                        destination_stride);
      }
    }
  }
#endif
  for (; done < columns; ++done) {
    for (int64_t row = 0; row < rows; ++row) std::memcpy(to + 4 * (done * destination_stride + row), from + row * source_stride_bytes + 4 * done, 4);
  }
}

}  // namespace graft
