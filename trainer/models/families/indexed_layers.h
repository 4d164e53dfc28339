// What families with DeepSeek sparse attention share: latent attention with an indexer (DeepSeek-V3.2, GLM-5).
#pragma once
#include "trainer/models/families/latent_layers.h"

namespace graft {

// The spec of a config.json but for which layers share an indexer. `neighbouring_pairs`: the rotary pairs of the indexer; the attention's are neighbours.
// The reader is finished by the caller, who then calls set_experts with the layers that come back.
struct IndexedLayers {
  DecoderSpec spec;
  ExpertsSpec experts;
  DenseLayers dense;
};
IndexedLayers read_indexed_layers(ConfigReader& reader, const char* family, bool neighbouring_pairs);
// The same of a GGUF header; layers that predict further tokens, which files count among the others, are left out.
DecoderSpec indexed_spec_from_gguf(const GgufFile& file, const char* family, bool neighbouring_pairs);
void write_indexed_config(const DecoderSpec& spec, nlohmann::ordered_json& config);
void write_indexed_gguf(const DecoderSpec& spec, GgufKeys& keys);

}  // namespace graft
