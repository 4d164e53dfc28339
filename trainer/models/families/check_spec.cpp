#include "kernels/common/error.h"
#include "trainer/models/families/family.h"

namespace graft {

void check_spec(const DecoderSpec& spec) {
  for (const auto& layer : spec.layers) {
    const auto* attention = std::get_if<AttentionSpec>(&layer.mixer);
    if (!attention) continue;
    if (attention->num_heads % attention->num_kv_heads != 0) {
      fail("models", "expected a number of attention heads that is a multiple of the key-value heads, got {} and {} — the configuration contradicts itself",
           attention->num_heads, attention->num_kv_heads);
    }
    if (attention->head_size % 2 != 0 || attention->head_size < 2 || attention->head_size > 4096) {
      fail("models", "expected an even head size from 2 to 4096, got {}", attention->head_size);
    }
  }
}

}  // namespace graft
