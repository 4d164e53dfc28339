#include "kernels/attention/attention_tiles.h"

#include <algorithm>

namespace graft {

using cuda::AttentionTile;

namespace {

// Pairs of a query and a key that a tile computes.
int64_t work_of(TileOf of, const AttentionTile& tile, std::span<const int32_t> offsets, int32_t shared_prefix, int32_t window) {
  const auto limited = [&](int64_t seen) { return window > 0 ? std::min<int64_t>(seen, window) : seen; };
  const int64_t place = tile.first - tile.document_begin;
  if (of == TileOf::kQueries) return tile.count * limited(tile.before + place + tile.count);
  int64_t queries = limited(tile.document_end - tile.first);
  const bool seen_by_all = tile.document_begin == 0 && tile.first < shared_prefix;
  if (seen_by_all) queries += offsets.back() - offsets[1];
  return tile.count * queries;
}

}  // namespace

std::vector<AttentionTile> attention_tiles(TileOf of, std::span<const int32_t> offsets, int32_t shared_prefix, int32_t window, int32_t rows, std::span<const int32_t> cached) {
  std::vector<std::pair<int64_t, AttentionTile>> tiles;
  for (size_t d = 0; d + 1 < offsets.size(); ++d) {
    for (int32_t first = offsets[d]; first < offsets[d + 1]; first += rows) {
      const AttentionTile tile{offsets[d] - (cached.empty() ? 0 : cached[d]), offsets[d + 1], offsets[d] == 0 ? 0 : shared_prefix, first, std::min(rows, offsets[d + 1] - first), static_cast<int32_t>(d)};
      tiles.push_back({work_of(of, tile, offsets, shared_prefix, window), tile});
    }
  }
  std::stable_sort(tiles.begin(), tiles.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<AttentionTile> sorted;
  for (const auto& [work, tile] : tiles) sorted.push_back(tile);
  return sorted;
}

}  // namespace graft
