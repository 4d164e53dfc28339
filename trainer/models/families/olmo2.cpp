// olmo2: norms after the blocks instead of before, and RMS norms of all queries and all keys of a token as one row each.
#include "trainer/models/families/llama_like.h"

namespace graft {
namespace olmo2 {

void set_layers(DecoderSpec& spec) {
  for (auto& layer : spec.layers) {
    layer.mixer_post_norm = layer.channel_post_norm = layer.attention().head_norm = layer.mixer_norm;
    layer.mixer_norm.reset();
    layer.channel_norm.reset();
    layer.attention().head_norm_place = AttentionSpec::HeadNorm::kWholeWidth;
  }
}

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "olmo2");
  auto spec = llama_like_spec(reader, "olmo2");
  reader.expect_false({"attention_bias"});
  reader.finish();
  set_layers(spec);
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  auto spec = llama_like_spec(file, "olmo2");
  set_layers(spec);
  return spec;
}

WeightMap weights(const DecoderSpec& spec) {
  return weight_map_of(spec, llama_names_with({{"mixer_post_norm", {"post_attention_layernorm", "post_attention_norm"}},
                                               {"channel_post_norm", {"post_feedforward_layernorm", "post_ffw_norm"}}}));
}

}  // namespace olmo2

Family olmo2_family() {
  using namespace olmo2;
  return {"olmo2", "Olmo2ForCausalLM", "olmo2", from_config, from_gguf, weights};
}

}  // namespace graft
