#include "kernels/common/error.h"
#include "trainer/models/families/family.h"

namespace graft {

void check_spec(const DecoderSpec& spec) {
  bool indexed = false;   // the layer before
  for (const auto& layer : spec.layers) {
    if (const auto* delta = layer.delta_attention()) {
      if (delta->num_value_heads % delta->num_key_heads == 0) continue;
      fail("models", "expected a number of value heads of linear attention that is a multiple of its key heads, got {} and {} — the configuration contradicts itself",
           delta->num_value_heads, delta->num_key_heads);
    }
    const auto heads = layer.heads();
    if (heads.num_heads % heads.num_kv_heads != 0) {
      fail("models", "expected a number of attention heads that is a multiple of the key-value heads, got {} and {} — the configuration contradicts itself",
           heads.num_heads, heads.num_kv_heads);
    }
    if (heads.size % 2 != 0 || heads.size < 2 || heads.size > 4096) {
      fail("models", "expected an even head size from 2 to 4096, got {}", heads.size);
    }
    if (layer.takes_selected_keys() && !indexed) {
      fail("models", "expected a layer with an indexer before one that shares its keys, got none — the configuration contradicts itself");
    }
    indexed = layer.latent_attention() && layer.latent_attention()->indexer;
  }
}

}  // namespace graft
