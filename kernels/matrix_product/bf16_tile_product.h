// The innermost product in bfloat16: a few rows of a plain matrix times one packed panel, products and sums in float32. A panel holds pairs: the word at
// panel[depth / 2][column] is (element 2k, element 2k + 1) of a column, which one instruction multiplies with the same pair of a row (VDPBF16PS: Intel,
// Architecture Instruction Set Extensions; twice the rate of float32 where a machine has it).
#pragma once
#include <cstdint>

namespace graft {

// c[rows, columns] (+)= a[rows, depth] * panel[ceil(depth / 2), panel_width]
// As TileProduct of tile_product.h; with an odd depth the upper halves of the last words are zero. Denormals count as zero on some machines.
using Bf16TileProduct = void (*)(const uint16_t* a, int64_t a_row_stride, int64_t rows, const uint32_t* panel, int64_t panel_width, int64_t depth, float* c,
                                 int64_t c_row_stride, int64_t columns, bool accumulate);

Bf16TileProduct bf16_tile_product();          // the fastest that this machine runs
Bf16TileProduct bf16_tile_product_avx512();   // null where the machine or the compiler lacks it
Bf16TileProduct bf16_tile_product_portable();

// Whether operators on bfloat16 tensors multiply in bfloat16: where the machine has the instruction. Elsewhere they widen to float32, which is as fast.
bool multiplies_in_bf16();
void set_multiplies_in_bf16(bool on);         // a switch for tests, of the whole process

// words[i] = (even[i], odd[i])
void interleave(const uint16_t* even, const uint16_t* odd, int64_t count, uint32_t* words);

}  // namespace graft
