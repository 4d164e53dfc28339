#include "kernels/quantized_product/quantized_product_plan.h"

#include <algorithm>

#include "kernels/quantized_product/quantized_product.cuh"

namespace graft {
namespace {

constexpr int64_t ceil_divided(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The fused product decodes a weight once for each tile of rows. The way through scratch decodes once, writes 2 bytes and reads them again for about half a
// byte of codes: as much traffic as eight times the codes, and about the time of two decodings. Of a small weight the second launch costs more than that.
constexpr int64_t kMostDecodings = 2, kMostDecodingsOfSmall = 4, kSmall = int64_t{1} << 20;
// Four blocks for each multiprocessor of a large GPU; a constant, so that the order of sums is no matter of the GPU.
constexpr int64_t kWantedBlocks = 512;
// Tiles of a split at least: a block's start must not cost more than its work.
constexpr int64_t kLeastTiles = 4;

}  // namespace

QuantizedProductPlan quantized_product_plan(int64_t num_rows, int64_t outputs, int64_t inner) {
  const int64_t decodings = ceil_divided(num_rows, cuda::kQuantizedTile), tiles = std::max<int64_t>(1, ceil_divided(inner, cuda::kQuantizedTile));
  QuantizedProductPlan plan;
  plan.fused = decodings <= (outputs * inner <= kSmall ? kMostDecodingsOfSmall : kMostDecodings);
  const int64_t blocks = std::max<int64_t>(1, decodings * ceil_divided(outputs, cuda::kQuantizedTile));
  // A split writes and reads 8 bytes for each row and output: no more than the codes' bytes, half of one for each inner element and output.
  const int64_t by_traffic = inner / (16 * std::max<int64_t>(1, num_rows));
  const int64_t splits = std::max<int64_t>(1, std::min({kWantedBlocks / blocks, by_traffic, tiles / kLeastTiles}));
  plan.split = static_cast<int>(ceil_divided(tiles, splits));
  plan.num_splits = static_cast<int>(ceil_divided(tiles, plan.split));
  return plan;
}

}  // namespace graft
