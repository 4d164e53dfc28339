// How attention over packed documents is cut into blocks of a GPU's grid. A pure function of lengths; no Torch.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/attention/attention.cuh"

namespace graft {

enum class TileOf { kQueries, kKeys };

// Tiles of at most `rows` tokens, those with most work first (longest processing time first: Graham 1969), which keeps the last blocks short. Ties by
// token. offsets: as packed_attention's. window: 0 or as there. cached: how many earlier tokens of each document are in its cache; empty: none.
std::vector<cuda::AttentionTile> attention_tiles(TileOf of, std::span<const int32_t> offsets, int32_t shared_prefix, int32_t window, int32_t rows, std::span<const int32_t> cached = {});

}  // namespace graft
