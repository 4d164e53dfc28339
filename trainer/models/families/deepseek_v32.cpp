// deepseek_v32: DeepSeek V3.2. DeepSeek V3's layers; where a token has more than index_topk before it, an indexer in every layer chooses which it sees.
#include "trainer/models/families/indexed_layers.h"

namespace graft {
namespace deepseek_v32 {

constexpr bool kNeighbouringPairs = false;   // of the indexer

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "deepseek_v32");
  auto layers = read_indexed_layers(reader, "deepseek_v32", kNeighbouringPairs);
  for (const char* key : {"n_group", "topk_group"}) reader.at(key);   // absent is missing: transformers' class then has 8 and 4
  reader.finish();
  set_experts(layers.spec, layers.experts, layers.dense);
  return layers.spec;
}

DecoderSpec from_gguf(const GgufFile& file) { return indexed_spec_from_gguf(file, "deepseek_v32", kNeighbouringPairs); }

}  // namespace deepseek_v32

Family deepseek_v32_family() {
  using namespace deepseek_v32;
  return {"deepseek_v32", "DeepseekV32ForCausalLM", "deepseek32", from_config, from_gguf, latent_weights, write_indexed_config, write_indexed_gguf};
}

}  // namespace graft
