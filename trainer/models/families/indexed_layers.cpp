#include "trainer/models/families/indexed_layers.h"

#include "kernels/common/error.h"

namespace graft {
namespace {

constexpr int64_t kMostIndexHeads = 4096, kLargestIndexHead = 4096;   // larger ones are damage
constexpr int64_t kFirstDense = 3;                                    // transformers' classes: without a list and first_k_dense_replace

void set_indexer(DecoderSpec& spec, const IndexerSpec& indexer) {
  for (auto& layer : spec.layers) std::get<LatentAttentionSpec>(layer.mixer).indexer = indexer;
}

}  // namespace

IndexedLayers read_indexed_layers(ConfigReader& reader, const char* family, bool neighbouring_pairs) {
  LlamaDefaults defaults;
  defaults.own_ropes = true;
  IndexedLayers layers{llama_like_spec(reader, family, defaults), {}, {}};
  read_latent_attention(reader, layers.spec, true);
  const auto& attention = *layers.spec.layers[0].latent_attention();
  if (attention.query_rank == 0) reader.wrong("q_lora_rank", "a number: the indexer reads the queries' latent");
  if (!reader.bool_or("rope_interleave", true)) reader.wrong("rope_interleave", "true");
  if (reader.bool_or("indexer_rope_interleave", neighbouring_pairs) != neighbouring_pairs) reader.wrong("indexer_rope_interleave", neighbouring_pairs ? "true" : "false");
  IndexerSpec indexer;
  indexer.num_heads = reader.need_int("index_n_heads", 1, kMostIndexHeads);
  indexer.head_size = reader.need_int("index_head_dim", 2, kLargestIndexHead);
  indexer.keys_per_query = reader.need_int("index_topk");
  indexer.neighbouring_pairs = neighbouring_pairs;
  if (indexer.head_size < attention.rotary_size) reader.wrong("index_head_dim", "at least qk_rope_head_dim, whose elements turn");
  set_indexer(layers.spec, indexer);
  layers.experts = read_deepseek_experts(reader);
  read_sigmoid_router(reader, layers.experts.router);
  layers.dense = read_mlp_layer_types(reader, reader.int_or("first_k_dense_replace", kFirstDense), kFirstDense);
  // Of the cache's kind, of the router's numbers (always float32), of further layers.
  reader.ignore({"layer_types", "moe_router_dtype", "index_share_for_mtp_iteration"});
  reader.expect_false({"mlp_bias"});
  return layers;
}

DecoderSpec indexed_spec_from_gguf(const GgufFile& file, const char* family, bool neighbouring_pairs) {
  const GgufReader reader(file);
  auto spec = latent_spec_from_gguf(file, family);
  IndexerSpec indexer;
  indexer.num_heads = reader.need_int("attention.indexer.head_count", kMostIndexHeads);
  indexer.head_size = reader.need_int("attention.indexer.key_length", kLargestIndexHead);
  indexer.keys_per_query = reader.need_int("attention.indexer.top_k", int64_t{1} << 31);
  indexer.neighbouring_pairs = neighbouring_pairs;
  const auto& attention = *spec.layers[0].latent_attention();
  if (attention.query_rank == 0 || indexer.head_size < attention.rotary_size) {
    fail("models", "expected attention.q_lora_rank and attention.indexer.key_length from rope.dimension_count on, got others ({}) — the file is damaged", reader.name());
  }
  set_indexer(spec, indexer);
  return spec;
}

void write_indexed_config(const DecoderSpec& spec, nlohmann::ordered_json& config) {
  const auto& indexer = *spec.layers[0].latent_attention()->indexer;
  write_latent_config(spec, config);
  write_mlp_layer_types(spec, config);
  config["index_n_heads"] = indexer.num_heads;
  config["index_head_dim"] = indexer.head_size;
  config["index_topk"] = indexer.keys_per_query;
  config["scoring_func"] = "sigmoid";
  config["topk_method"] = "noaux_tc";
  config["num_nextn_predict_layers"] = 0;
}

void write_indexed_gguf(const DecoderSpec& spec, GgufKeys& keys) {
  const auto& attention = *spec.layers[0].latent_attention();
  const auto& indexer = *attention.indexer;
  // llama.cpp finds a head's plain elements behind as many as there are of them, and turns indexers by Hadamard matrices of 64 and more.
  if (indexer.head_size != 2 * attention.rotary_size || indexer.head_size % 64 != 0) refuse(keys, "index_head_dim a multiple of 64 and twice qk_rope_head_dim");
  write_latent_gguf(spec, keys);
  keys.u32("attention.indexer.head_count", indexer.num_heads);
  keys.u32("attention.indexer.key_length", indexer.head_size);
  keys.u32("attention.indexer.top_k", indexer.keys_per_query);
}

}  // namespace graft
