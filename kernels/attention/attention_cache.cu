// A block copies the keys and values of a tile's tokens, packs of 16 bytes, neighbouring threads neighbouring packs.
#include "kernels/attention/attention.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/elements.cuh"

namespace graft::cuda {
namespace {

constexpr int kThreads = 128;

template <typename Element>
GRAFT_DEVICE void append_rows(const HeadRows& from, void* cache, const AttentionTile& tile, int num_heads, int size) {
  constexpr int kPack = kWidestPack<Element>;
  const int packs = size / kPack, of_token = num_heads * packs;
  auto* to = static_cast<Element*>(cache) + int64_t(tile.first - tile.document_begin) * num_heads * size;
  for (int i = thread_in_block(); i < tile.count * of_token; i += kThreads) {
    const int row = i / of_token, head = i % of_token / packs, column = i % packs * kPack;
    const auto* source = static_cast<const Element*>(from.data) + (tile.first + row) * from.token_stride + head * from.head_stride + column;
    store(reinterpret_cast<Pack<Element, kPack>*>(to) + i, load(reinterpret_cast<const Pack<Element, kPack>*>(source)));
  }
}

template <typename Element>
GRAFT_KERNEL(kThreads) append_to_caches(const AttentionCacheAppend arguments) {
  const AttentionTile tile = load(arguments.tiles + block_in_grid());
  const CachedRows cache = load(arguments.caches + tile.document);
  append_rows<Element>(arguments.keys, cache.keys, tile, arguments.num_kv_heads, arguments.head_size);
  append_rows<Element>(arguments.values, cache.values, tile, arguments.num_kv_heads, arguments.value_size);
}

}  // namespace

const char* launch(const AttentionCacheAppend& arguments, void* stream) {
  if (arguments.num_tiles == 0) return nullptr;
  for_row_type(arguments.type, [&](auto element) { LAUNCH(append_to_caches<decltype(element)>, arguments.num_tiles, kThreads, 0, stream, arguments); });
  return launch_error();
}

}  // namespace graft::cuda
