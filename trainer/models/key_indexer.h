// Part of a mixer: the indexer of DeepSeek sparse attention (kernels/sparse_index). It stays frozen and has no gradient; all of it is float32.
#pragma once
#include "trainer/models/blocks.h"
#include "trainer/models/decoder_spec.h"

namespace graft {

class KeyIndexer {
 public:
  explicit KeyIndexer(const IndexerSpec& spec) : spec_(spec) {}
  // Bits [N, ..] as AttentionOptions has them, from the mixer's input and the latent that queries are made of. Undefined, and nothing computed, where no document has
  // more keys than a query may see. With caches it keeps its keys there, from the first token on: a sequence may grow.
  at::Tensor selected_keys(const BlockInput& input, const at::Tensor& query_latent_NR, const Norm& query_norm, const RopeTable& rope, const LayerContext& context) const;
  void set_device(c10::Device device);

  FrozenWeight query;     // [heads * size, query rank], from the normed latent
  FrozenWeight key;       // [size, C]; one for all heads
  Norm key_norm;          // a layer norm
  FrozenWeight weights;   // [heads, C]

 private:
  IndexerSpec spec_;
};

}  // namespace graft
