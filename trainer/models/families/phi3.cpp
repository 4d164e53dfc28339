// phi3: Phi-3, Phi-4. Query, key and value are one matrix, gate and up another; longrope; rotation of a part of each head in the mini models.
#include "trainer/models/families/llama_like.h"

namespace graft {
namespace phi3 {

void fuse(DecoderSpec& spec, int64_t window) {
  for (auto& layer : spec.layers) {
    layer.attention().fused = layer.mlp().fused = true;
    layer.attention().window = window;
  }
}

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "phi3");
  auto spec = llama_like_spec(reader, "phi3");
  fuse(spec, reader.int_or("sliding_window", 0));
  reader.ignore({"resid_pdrop", "embd_pdrop"});
  reader.expect_false({"attention_bias", "lm_head_bias", "mlp_bias"});
  for (const char* key : {"full_attn_mod", "interpolate_factor"}) {
    if (reader.int_or(key, 1) != 1) reader.wrong(key, "1");
  }
  reader.finish();
  return spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  auto spec = llama_like_spec(file, "phi3");
  fuse(spec, GgufReader(file).int_or("attention.sliding_window", 0));
  return spec;
}

WeightMap weights(const DecoderSpec& spec) { return weight_map_of(spec, llama_names_with({{"attention.qkv", {"self_attn.qkv_proj", "attn_qkv"}}})); }

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  const auto window = spec.layers[0].attention().window;
  config.erase("head_dim");   // transformers derives it
  config["original_max_position_embeddings"] = static_cast<int64_t>(spec.ropes[0].original_max_positions);
  config["sliding_window"] = window > 0 ? nlohmann::ordered_json(window) : nlohmann::ordered_json(nullptr);
}

void add_gguf(const DecoderSpec& spec, GgufKeys& keys) {
  keys.u32("rope.scaling.original_context_length", static_cast<int64_t>(spec.ropes[0].original_max_positions));
  keys.u32("attention.sliding_window", spec.layers[0].attention().window);
  limit_context_to_window(spec, keys);
}

}  // namespace phi3

Family phi3_family() {
  using namespace phi3;
  return {"phi3", "Phi3ForCausalLM", "phi3", from_config, from_gguf, weights, add_config, add_gguf};
}

}  // namespace graft
