#include "kernels/matrix_product/bf16_panel_amx.h"

#include <algorithm>
#include <array>
#include <atomic>

#include "kernels/matrix_product/tile_product.h"

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace graft {

#if defined(__x86_64__) && defined(__linux__)

namespace {

constexpr int64_t kTile = 16;                  // rows, and 32-bit columns
constexpr int64_t kBlock = 2 * kTile;          // rows and columns of sums at a time: four tiles, two of a and two of the panel, all eight there are
constexpr int kRequestPermission = 0x1023, kTileData = 18;   // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA: Linux, Documentation/arch/x86/xstate.rst

// Tiles 0 1 / 2 3 are the sums, 4 and 5 rows of a, 6 and 7 columns of the panel.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

constexpr TileShapes shapes_of(int64_t rows) {   // 1 to kBlock
  TileShapes shapes;
  for (int tile = 0; tile < 8; ++tile) shapes.row_bytes[tile] = 64;
  const auto upper = static_cast<uint8_t>(rows < kTile ? rows : kTile), lower = static_cast<uint8_t>(rows > kTile ? rows - kTile : 1);
  for (const int tile : {0, 1, 4}) shapes.rows[tile] = upper;
  for (const int tile : {2, 3, 5}) shapes.rows[tile] = lower;
  for (const int tile : {6, 7}) shapes.rows[tile] = kTile;
  return shapes;
}

constexpr std::array<TileShapes, kBlock> all_shapes() {
  std::array<TileShapes, kBlock> all;
  for (int64_t rows = 1; rows <= kBlock; ++rows) all[static_cast<size_t>(rows - 1)] = shapes_of(rows);
  return all;
}

// The compiler knows nothing of tiles: what these read and write in memory is said to it by "memory".
#define GRAFT_TILE_LOAD(tile, base, stride) asm volatile("tileloadd (%0,%1,1), %%tmm" #tile : : "r"(base), "r"(stride) : "memory")
#define GRAFT_TILE_STORE(tile, base, stride) asm volatile("tilestored %%tmm" #tile ", (%0,%1,1)" : : "r"(base), "r"(stride) : "memory")
#define GRAFT_TILE_ZERO(tile) asm volatile("tilezero %%tmm" #tile : :)
#define GRAFT_TILE_MULTIPLY(sums, a, b) asm volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #sums : :)

struct Sums {
  float* data;
  int64_t stride;   // bytes
  float* at(int64_t row, int64_t column) const { return data + row * (stride / 4) + column; }
};

template <bool kLower, bool kRight>
void load_sums(const Sums& c) {
  GRAFT_TILE_LOAD(0, c.at(0, 0), c.stride);
  if constexpr (kRight) GRAFT_TILE_LOAD(1, c.at(0, kTile), c.stride);
  if constexpr (kLower) GRAFT_TILE_LOAD(2, c.at(kTile, 0), c.stride);
  if constexpr (kLower && kRight) GRAFT_TILE_LOAD(3, c.at(kTile, kTile), c.stride);
}

template <bool kLower, bool kRight>
void store_sums(const Sums& c) {
  GRAFT_TILE_STORE(0, c.at(0, 0), c.stride);
  if constexpr (kRight) GRAFT_TILE_STORE(1, c.at(0, kTile), c.stride);
  if constexpr (kLower) GRAFT_TILE_STORE(2, c.at(kTile, 0), c.stride);
  if constexpr (kLower && kRight) GRAFT_TILE_STORE(3, c.at(kTile, kTile), c.stride);
}

// Operands of one block: a's rows, and two tiles of the panel beside each other.
struct Operands {
  const uint16_t* a;
  int64_t a_stride;              // bytes
  const uint32_t* panel;
  int64_t panel_stride;          // bytes
};

template <bool kLower, bool kRight>
void multiply_step(const Operands& step) {
  GRAFT_TILE_LOAD(6, step.panel, step.panel_stride);
  GRAFT_TILE_LOAD(4, step.a, step.a_stride);
  GRAFT_TILE_MULTIPLY(0, 4, 6);
  if constexpr (kRight) {
    GRAFT_TILE_LOAD(7, step.panel + kTile, step.panel_stride);
    GRAFT_TILE_MULTIPLY(1, 4, 7);
  }
  if constexpr (kLower) {
    GRAFT_TILE_LOAD(5, step.a + kTile * (step.a_stride / 2), step.a_stride);
    GRAFT_TILE_MULTIPLY(2, 5, 6);
    if constexpr (kRight) GRAFT_TILE_MULTIPLY(3, 5, 7);
  }
}

// kLower: more than 16 rows; kRight: more than 16 columns. rest: one step more, where its a is not null.
template <bool kLower, bool kRight>
void block_product(const Operands& first, int64_t num_steps, const Operands& rest, const Sums& c, bool accumulate) {
  if (accumulate) {
    load_sums<kLower, kRight>(c);
  } else {
    GRAFT_TILE_ZERO(0);
    GRAFT_TILE_ZERO(1);
    GRAFT_TILE_ZERO(2);
    GRAFT_TILE_ZERO(3);
  }
  auto step = first;
  for (int64_t i = 0; i < num_steps; ++i) {
    multiply_step<kLower, kRight>(step);
    step.a += kAmxDepth;
    step.panel += kAmxDepth / 2 * (step.panel_stride / 4);
  }
  if (rest.a) multiply_step<kLower, kRight>(rest);
  store_sums<kLower, kRight>(c);
}

using BlockProduct = void (*)(const Operands&, int64_t, const Operands&, const Sums&, bool);
constexpr BlockProduct kBlockProducts[2][2] = {{block_product<false, false>, block_product<false, true>}, {block_product<true, false>, block_product<true, true>}};

// Rows of `size` elements to rows of `to_stride`, with zeros behind them.
template <typename Element>
void copy_padded(const Element* from, int64_t from_stride, int64_t rows, int64_t size, Element* to, int64_t to_stride) {
  for (int64_t row = 0; row < rows; ++row) {
    std::copy_n(from + row * from_stride, size, to + row * to_stride);
    std::fill(to + row * to_stride + size, to + (row + 1) * to_stride, Element{0});
  }
}

void panel_product_amx(const uint16_t* a, int64_t a_row_stride, int64_t num_rows, const uint32_t* panel, int64_t panel_width, int64_t depth, float* c, int64_t c_row_stride,
                       int64_t num_columns, bool accumulate) {
  static constexpr auto kShapes = all_shapes();
  const int64_t steps = depth / kAmxDepth, whole = steps * kAmxDepth, left = depth - whole;
  alignas(64) uint32_t panel_rest[kAmxDepth / 2 * kPanelColumns];   // of an incomplete step, with zeros to its end
  alignas(64) uint16_t a_rest[kBlock * kAmxDepth];
  if (left > 0) {
    const int64_t words = (left + 1) / 2 * panel_width;
    std::copy_n(panel + whole / 2 * panel_width, words, panel_rest);
    std::fill(panel_rest + words, panel_rest + kAmxDepth / 2 * panel_width, 0u);
  }
  int64_t shaped = 0;
  for (int64_t row = 0; row < num_rows; row += kBlock) {
    const int64_t rows = std::min(kBlock, num_rows - row);
    if (rows != shaped) {
      asm volatile("ldtilecfg %0" : : "m"(kShapes[static_cast<size_t>(rows - 1)]));
      shaped = rows;
    }
    const auto* first = a + row * a_row_stride;
    if (left > 0) copy_padded(first + whole, a_row_stride, rows, left, a_rest, kAmxDepth);
    for (int64_t column = 0; column < num_columns; column += kBlock) {
      const int64_t width = std::min(kBlock, panel_width - column), columns = std::min(width, num_columns - column);
      const auto product = kBlockProducts[rows > kTile][width > kTile];
      const Operands operands{first, a_row_stride * 2, panel + column, panel_width * 4};
      const Operands rest{left > 0 ? a_rest : nullptr, kAmxDepth * 2, panel_rest + column, panel_width * 4};
      float* target = c + row * c_row_stride + column;
      if (columns == width) {
        product(operands, steps, rest, {target, c_row_stride * 4}, accumulate);
        continue;
      }
      alignas(64) float sums[kBlock * kBlock];   // c ends before the tile does
      if (accumulate) copy_padded(target, c_row_stride, rows, columns, sums, kBlock);
      product(operands, steps, rest, {sums, kBlock * 4}, accumulate);
      for (int64_t r = 0; r < rows; ++r) std::copy_n(sums + r * kBlock, columns, target + r * c_row_stride);
    }
  }
  asm volatile("tilerelease" : :);
}

bool has_amx() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  asm("cpuid" : "=a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx) : "a"(7), "c"(0));
  const bool bf16 = edx >> 22 & 1, tiles = edx >> 24 & 1;
  return bf16 && tiles && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

std::atomic<bool>& amx_switch() {
  static std::atomic<bool> on{true};
  return on;
}

}  // namespace

Bf16PanelProduct bf16_panel_product_amx() {
  static const bool there = has_amx();
  return there && amx_switch() ? panel_product_amx : nullptr;
}

void set_amx(bool on) { amx_switch() = on; }

#else

Bf16PanelProduct bf16_panel_product_amx() { return nullptr; }
void set_amx(bool) {}

#endif

}  // namespace graft
