// How products with quantised weights are computed on a device: pure functions of sizes, the same on every GPU; no Torch.
#pragma once
#include <cstdint>

namespace graft {

struct QuantizedProductPlan {
  bool fused = false;                 // decoded in the product; else decoded once into scratch, which a plain product reads
  int num_splits = 1, split = 1;      // of the fused product (QuantizedProduct)
};

// Of num_rows rows with `outputs` results each, sums over `inner`.
QuantizedProductPlan quantized_product_plan(int64_t num_rows, int64_t outputs, int64_t inner);

}  // namespace graft
