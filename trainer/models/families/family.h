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

struct Family {
  std::string model_type;         // of config.json
  std::string architecture;       // "LlamaForCausalLM", for exported configurations
  std::string gguf_architecture;  // general.architecture
  DecoderSpec (*spec_from_config)(const nlohmann::ordered_json& config);
  DecoderSpec (*spec_from_gguf)(const GgufFile& file);
  WeightMap (*weight_map)(const DecoderSpec& spec);
};

const std::vector<Family>& families();
// UserError that lists those there are.
const Family& family_of_model_type(const std::string& model_type);
const Family& family_of_gguf(const std::string& architecture);

// A config.json that transformers, vLLM and mistralrs read, from a spec (for merged exports of a GGUF base).
nlohmann::ordered_json config_from_spec(const DecoderSpec& spec);
// The GGUF hyperparameters llama.cpp needs ("llama.block_count", ...), without tokenizer keys.
std::vector<GgufEntry> gguf_hyperparameters(const DecoderSpec& spec);

}  // namespace graft
