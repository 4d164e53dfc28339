// A family is data: it turns a configuration into a DecoderSpec and a WeightMap. families.cpp holds the explicit table.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "checkpoints/gguf_file.h"
#include "checkpoints/weight_map.h"
#include "trainer/models/decoder_spec.h"

namespace graft {

class GgufKeys;

struct Family {
  std::string model_type;         // of config.json
  std::string architecture;       // "LlamaForCausalLM", for exported configurations
  std::string gguf_architecture;  // general.architecture
  DecoderSpec (*spec_from_config)(const nlohmann::ordered_json& config);
  DecoderSpec (*spec_from_gguf)(const GgufFile& file);
  WeightMap (*weight_map)(const DecoderSpec& spec);
  // What an exported config.json says beside or instead of the common keys (export_config.cpp); what a GGUF header says so. Null: nothing more.
  void (*add_config)(const DecoderSpec& spec, nlohmann::ordered_json& config) = nullptr;
  void (*add_gguf)(const DecoderSpec& spec, GgufKeys& keys) = nullptr;
  std::string gguf_marker;        // a tensor that tells GGUF files of this family from others of the same architecture; empty: any
};

// The explicit table, in issue order. Each is a file of its own.
Family llama_family();
Family mistral_family();
Family ministral3_family();
Family qwen2_family();
Family qwen3_family();
Family smollm3_family();
Family phi3_family();
Family glm_family();
Family glm4_family();
Family chatglm_family();
Family hunyuan_v1_dense_family();
Family ernie4_5_family();
Family pangu_embedded_family();
Family olmo2_family();
Family gemma2_family();
Family gemma3_text_family();
Family bloom_family();
Family gpt2_family();
Family mixtral_family();
Family qwen2_moe_family();
Family qwen3_moe_family();
Family glm4_moe_family();
Family hunyuan_v1_moe_family();
Family ernie4_5_moe_family();
Family gpt_oss_family();
Family deepseek_v2_family();
Family deepseek_v3_family();
Family kimi_k2_family();
Family glm4_moe_lite_family();
Family qwen3_next_family();
Family qwen3_5_text_family();
Family qwen3_5_moe_text_family();
Family kimi_linear_family();
Family deepseek_v32_family();
Family glm_moe_dsa_family();

const std::vector<Family>& families();
// UserError that lists those there are.
const Family& family_of_model_type(const std::string& model_type);
const Family& family_of_gguf(const GgufFile& file);

// UserError where a spec's numbers contradict each other.
void check_spec(const DecoderSpec& spec);

// A config.json that transformers, vLLM and mistralrs read, from a spec (for merged exports of a GGUF base).
nlohmann::ordered_json config_from_spec(const DecoderSpec& spec);
// The GGUF hyperparameters llama.cpp needs ("llama.block_count", ...), without tokenizer keys. UserError where GGUF cannot say what the spec says.
std::vector<GgufEntry> gguf_hyperparameters(const DecoderSpec& spec);

}  // namespace graft
