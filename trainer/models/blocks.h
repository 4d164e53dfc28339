// The two slots of a layer: a mixer, which lets tokens see each other, and a channel, which acts on each token alone. One block, one file.
#pragma once
#include <span>
#include <vector>

#include "trainer/models/batch.h"
#include "trainer/models/linear.h"
#include "trainer/models/norm.h"
#include "trainer/models/rope_tables.h"

namespace graft {

// What a router did in one layer, for metrics and the load-balancing loss.
struct Routing {
  at::Tensor chosen_NK;          // int64; undefined in a layer without experts
  at::Tensor probabilities_NE;   // softmax of the logits, float32, with its graph
};

// What a block may look at beside its input.
struct LayerContext {
  const Batch& batch;
  std::span<const RopeTable> ropes;
  std::span<KeyValueCache* const> caches;   // one per document, or empty: no earlier tokens
  std::span<DeltaState* const> delta_states;   // likewise
  Routing* routing = nullptr;               // where the caller wants it
  at::Tensor* selected_keys_NB = nullptr;   // what the layers before handed on (LayerStream); a mixer with an indexer puts its own there
};

class Block {
 public:
  virtual ~Block() = default;
  // [N, C] -> [N, C]; the residual add is the layer's.
  virtual at::Tensor forward(const BlockInput& input, const LayerContext& context) const = 0;
  // Every linear that an adapter may sit on, in a fixed order.
  virtual std::vector<Linear*> linears() = 0;
  // Moves what the block holds; this moves the linears, a block with tensors of its own moves them too.
  virtual void set_device(c10::Device device, at::ScalarType compute);
};

// What is never rounded to the compute type (routers, indexers): a frozen matrix times x, in float32.
at::Tensor float_product(const FrozenWeight& weight, const at::Tensor& bias_O, const at::Tensor& x_NC);

// Linear layers that read one input, in one pass: [y_1 | y_2 | ...]. Those with an adapter share the mask of its dropout.
at::Tensor project(const BlockInput& input, const std::vector<const Linear*>& linears, const Batch& batch);

}  // namespace graft
