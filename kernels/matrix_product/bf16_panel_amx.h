// Products with a packed panel in bfloat16 by AMX: tiles of 16 x 16 sums in registers of their own (TDPBF16PS: Intel, Architecture Instruction Set Extensions; eight
// and more times the rate of VDPBF16PS). A panel of pairs (bf16_tile_product.h) is what its second operand reads.
#pragma once
#include <cstdint>

namespace graft {

// c[rows, columns] (+)= a[rows, depth] * panel[ceil(depth / 2), panel_width], any number of rows. Panel and columns as in Bf16TileProduct.
// An element is a sum over steps of kAmxDepth (the last may be shorter), each of which adds its even products in order and its odd products in order, then both, then
// that to c: rows and columns beside it do not change a bit, nor does a depth that is cut between steps.
using Bf16PanelProduct = void (*)(const uint16_t* a, int64_t a_row_stride, int64_t rows, const uint32_t* panel, int64_t panel_width, int64_t depth, float* c,
                                  int64_t c_row_stride, int64_t columns, bool accumulate);

inline constexpr int64_t kAmxDepth = 32;

// Null where the machine, the kernel (which grants the registers: arch_prctl) or the compiler lacks it.
Bf16PanelProduct bf16_panel_product_amx();
void set_amx(bool on);   // a switch for tests, of the whole process: off, it is null

}  // namespace graft
