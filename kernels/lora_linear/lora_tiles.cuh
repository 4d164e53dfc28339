// What the kernels of LoRA linear share: what dropout does to tiles, and how low-rank products are added to them.
#pragma once
#include "kernels/cuda/matrix_part.cuh"
#include "kernels/cuda/tile_product.cuh"
#include "kernels/lora_linear/lora_linear.cuh"

namespace graft::cuda {

// Of rows of rounded factors A.
GRAFT_DEVICE int64_t a_stride_of(const LoraLayer& layer) { return (layer.inputs + kLoraStep - 1) / kLoraStep * kLoraStep; }

// SplitMix64 over the counters, as in lora_linear.cpp.
GRAFT_DEVICE float dropout_factor(const LoraMask& mask, int64_t row_key, int64_t column) {
  uint64_t bits = mask.key + 0x9e3779b97f4a7c15U * (static_cast<uint64_t>(row_key) * 0xd1342543de82ef95U + static_cast<uint64_t>(column) + 1);
  bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9U;
  bits = (bits ^ bits >> 27) * 0x94d049bb133111ebU;
  bits ^= bits >> 31;
  return bits >> 11 < mask.threshold ? 0.0F : mask.factor;
}

// Which elements of a tile dropout kept, a bit each.
template <typename Element, int kRows, int kColumns>
struct KeptElements {
  static constexpr int kPack = kWidestPack<Element>;
  SharedArray<uint16_t, kRows * kColumns / kPack> packs;
  GRAFT_DEVICE static int index(int row, int column) { return (row * kColumns + column) / kPack; }
  GRAFT_DEVICE bool at(int row, int column) const { return (packs.read(index(row, column)) >> column % kPack & 1) != 0; }
};

// On the elements that this thread has copied, after its wait and before the block's barrier. The tile's first element is (row, column) of p; `kept` may be
// null.
template <int kThreads, typename Element, int kRows, int kColumns>
GRAFT_DEVICE void apply_dropout(Tile<Element, kRows, kColumns>& tile, const LoraLayer& layer, int64_t row, int64_t column,
                                KeptElements<Element, kRows, kColumns>* kept) {
  using Of = Tile<Element, kRows, kColumns>;
  constexpr int kPack = kWidestPack<Element>;
  if (!layer.mask.row_keys_N) return;
  const int rows = left_of(layer.num_rows, row), columns = left_of(layer.inputs, column);
  for_packs<kThreads, Element, kRows, kColumns>([&](int r, int c) {
    if (r >= rows || c >= columns) return;
    const int64_t key = load(layer.mask.row_keys_N + row + r);
    auto pack = tile.elements.template read_pack<kPack>(Of::index(r, c));
    unsigned bits = 0;
    for (int i = 0; i < kPack; ++i) {
      const float factor = dropout_factor(layer.mask, key, column + c + i);
      pack.values[i] = from_float<Element>(to_float(pack.values[i]) * factor);
      bits |= static_cast<unsigned>(factor != 0) << i;
    }
    tile.elements.template write_pack<kPack>(Of::index(r, c), pack);
    if (kept) kept->packs.write(kept->index(r, c), static_cast<uint16_t>(bits));
  });
}

// outputs[row .. row + 16] = added(low factors^T, row, column) for a warp's rows, plus what is there where `adds`, rounded once. kTransposed: factors are [ranks,
// columns].
template <bool kTransposed, typename Element, int kRows, int kColumns, int kWidth, int kFactorRows, int kFactorColumns, typename Function>
GRAFT_DEVICE void add_low_rank(Tile<Element, kRows, kColumns>& outputs, int row, const Tile<Element, kRows, kWidth>& low,
                               const Tile<Element, kFactorRows, kFactorColumns>& factors, bool adds, const Function& added) {
  using Of = Tile<Element, kRows, kColumns>;
  constexpr int kAtOnce = sizeof(Element) == 4 ? 32 : 64;   // columns whose sums are in registers
  for (int column = 0; column < kColumns; column += kAtOnce) {
    Sums sums[kAtOnce / 8];
    set_zero(sums);
    add_product<kWidth, false, kTransposed>(sums, low, row, 0, factors, column, 0);
    for_pairs(sums, [&](int r, int c, float first, float second) {
      const int at = Of::index(row + r, column + c);
      first = added(first, row + r, column + c);
      second = added(second, row + r, column + c + 1);
      if (adds) {
        const auto before = outputs.elements.template read_pack<2>(at);
        first += to_float(before.values[0]);
        second += to_float(before.values[1]);
      }
      outputs.elements.template write_pack<2>(at, pack_of<Element>(first, second));
    });
  }
}

// f(element, width), which says whether there is such a kernel, for a layer's type and a window's width.
template <int kWidth>
struct LoraWidth {
  static constexpr int kValue = kWidth;
};
template <int... kWidths, typename Function>
bool for_lora_kernel(const LoraLayer& layer, const LoraWindow& window, const Function& function) {
  bool known = false;
  for_row_type(layer.type, [&](auto element) { known = ((window.width == kWidths && function(element, LoraWidth<kWidths>())) || ...); });
  return known;
}

}  // namespace graft::cuda
