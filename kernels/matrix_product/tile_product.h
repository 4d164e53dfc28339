// The innermost product of frozen_product in float32: a few rows of a plain matrix times one packed panel. In bfloat16: bf16_tile_product.h.
#pragma once
#include <cstdint>

namespace graft {

inline constexpr int64_t kTileRows = 6, kPanelColumns = 64;

// c[rows, columns] (+)= a[rows, depth] * panel[depth, panel_width]
// rows: 1 to kTileRows; columns: 1 to panel_width; panel_width: 16, 32, 48 or 64, with zeros beyond `columns`, aligned to 64 bytes.
// Every element is one chain of multiply-adds from 0 in the order of depth, which is then (accumulate) added to what c holds: which rows stand
// beside each other does not change a bit. With fused multiply-add (AVX-512, AVX2, ARM) all machines agree.
using TileProduct = void (*)(const float* a, int64_t a_row_stride, int64_t rows, const float* panel, int64_t panel_width, int64_t depth, float* c,
                             int64_t c_row_stride, int64_t columns, bool accumulate);

TileProduct tile_product();            // the fastest that this machine runs
TileProduct tile_product_avx512();     // null where the machine or the compiler lacks it; likewise below
TileProduct tile_product_avx2();
TileProduct tile_product_portable();

// destination[column * destination_stride + row] = source[row][column], whatever 32-bit words mean; rows is a multiple of 16. Strides of the source in
// bytes (rows of bfloat16 pairs may begin anywhere), of the destination in words.
void transpose_words(const void* source, int64_t source_stride_bytes, int64_t rows, int64_t columns, void* destination, int64_t destination_stride);

}  // namespace graft
