// glm_moe_dsa: GLM-5 and its successors. DeepSeek V3.2's layers; a layer may see the keys that the layer before it saw instead of choosing its own
// (IndexShare, arXiv 2603.12201).
#include <algorithm>

#include <fmt/format.h>

#include "kernels/common/error.h"
#include "trainer/models/families/indexed_layers.h"

namespace graft {
namespace glm_moe_dsa {

constexpr bool kNeighbouringPairs = true;   // of the indexer
constexpr const char* kGgufTypes = "attention.indexer.types";

IndexerSpec& indexer_of(LayerSpec& layer) { return *std::get<LatentAttentionSpec>(layer.mixer).indexer; }

// indexer_types; without it index_topk_pattern, letters or the same words; without both a layer with an indexer every index_topk_freq layers.
void read_indexer_types(ConfigReader& reader, DecoderSpec& spec) {
  const auto frequency = std::max<int64_t>(1, reader.int_or("index_topk_freq", 1)), offset = reader.int_or("index_skip_topk_offset", 2);
  const char* key = reader.has("indexer_types") ? "indexer_types" : "index_topk_pattern";
  nlohmann::ordered_json types = reader.has(key) ? reader.at(key) : nlohmann::ordered_json::array();
  if (types.is_string()) {
    const auto letters = types.get<std::string>();
    types = nlohmann::ordered_json::array();
    for (const char letter : letters) types.push_back(letter == 'F' ? "full" : letter == 'S' ? "shared" : "?");
  }
  bool known = !reader.has(key) || (types.is_array() && types.size() == spec.layers.size());
  for (size_t layer = 0; known && layer < spec.layers.size(); ++layer) {
    const auto since = std::max<int64_t>(static_cast<int64_t>(layer) - offset + 1, 0);
    const auto type = !reader.has(key) ? nlohmann::ordered_json(since % frequency == 0 ? "full" : "shared") : types[layer];
    known = type == "full" || (type == "shared" && layer > 0);
    indexer_of(spec.layers[layer]).shared = type == "shared";
  }
  if (!known) reader.wrong(key, "full or shared for each layer, the first one full");
  reader.ignore({"indexer_types", "index_topk_pattern"});
}

DecoderSpec from_config(const nlohmann::ordered_json& config) {
  ConfigReader reader(config, "glm_moe_dsa");
  auto layers = read_indexed_layers(reader, "glm_moe_dsa", kNeighbouringPairs);
  read_indexer_types(reader, layers.spec);
  reader.finish();
  set_experts(layers.spec, layers.experts, layers.dense);
  return layers.spec;
}

DecoderSpec from_gguf(const GgufFile& file) {
  const GgufReader reader(file);
  auto spec = indexed_spec_from_gguf(file, "glm_moe_dsa", kNeighbouringPairs);
  if (spec.ropes[0].scaling != RopeSpec::Scaling::kNone) {
    fail("models", "expected no rope.scaling.type, got one ({}) — it is not supported with glm-dsa, whose scores llama.cpp would not scale", reader.name());
  }
  // Files from before the key have the tensors of an indexer where there is one.
  const auto types = reader.ints(kGgufTypes);
  if (!types.empty() && types.size() < spec.layers.size()) {
    fail("models", "expected {} of each layer, got {} of {} layers ({}) — the file is damaged", kGgufTypes, types.size(), spec.layers.size(), reader.name());
  }
  for (size_t layer = 0; layer < spec.layers.size(); ++layer) {
    indexer_of(spec.layers[layer]).shared = types.empty() ? !has_tensor(file, fmt::format("blk.{}.indexer.proj.weight", layer).c_str()) : types[layer] == 0;
  }
  return spec;
}

void add_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  write_indexed_config(spec, config);
  auto types = nlohmann::ordered_json::array();
  for (const auto& layer : spec.layers) types.push_back(layer.takes_selected_keys() ? "shared" : "full");
  config["indexer_types"] = types;
}

void add_gguf(const DecoderSpec& spec, GgufKeys& keys) {
  if (spec.ropes[0].scaling != RopeSpec::Scaling::kNone) refuse(keys, "no scaled rotary embedding");
  write_indexed_gguf(spec, keys);
  std::vector<uint32_t> types;
  for (const auto& layer : spec.layers) types.push_back(layer.takes_selected_keys() ? 0 : 1);
  keys.u32s(kGgufTypes, types);
}

}  // namespace glm_moe_dsa

Family glm_moe_dsa_family() {
  using namespace glm_moe_dsa;
  return {"glm_moe_dsa", "GlmMoeDsaForCausalLM", "glm-dsa", from_config, from_gguf, latent_weights, add_config, add_gguf};
}

}  // namespace graft
