// How PEFT names and lays out the factors of an Adapter in its files: rows of B as the hub's weights lie, experts as one parameter or as modules of their own.
#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "checkpoints/peft_adapter.h"
#include "trainer/adapters/adapter_set.h"

namespace graft {

// "model.layers.0.self_attn.q_proj"; of experts "model.layers.0.mlp.experts", or with ".base_layer" the inner one of two parameters of that module: PEFT wraps
// gate_up_proj first, then down_proj.
std::string peft_module(const AdapterSet& adapters, const Adapter& adapter);

LoraFactors to_peft(const Adapter& adapter, const float* a, const float* b);
// Null where the file has none of the adapter's sizes: found by name, and of experts by sizes too, because older versions of PEFT wrapped in the other order.
const LoraFactors* find_in_peft(const PeftAdapter& file, const Adapter& adapter, std::string* module);
void from_peft(const Adapter& adapter, const LoraFactors& factors, float* a, float* b);

// Experts as modules of their own, as transformers 4 has them and vLLM reads them: "model.layers.0.mlp.experts.3.gate_proj", the name of the checkpoint's own tensor.
// Empty where a tensor holds them all (gpt_oss).
std::string own_module(const WeightRule& rule);

// All modules of an adapter in that layout, its other ones by their names in checkpoints too; values null: sizes alone. Gate and up have the same A. A layer with a part
// of its experts' matrices adapted gets zeros for the others, of `rank`: vLLM wants gate, up and down of each expert or none.
std::map<std::string, LoraFactors> modules_of_experts(const AdapterSet& adapters, const float* values, int64_t rank);

// Makes of such a file one with experts as parameters, for the functions here; another stays as it is. Experts whose gate and up have the same A keep their rank,
// others get the sum of the two. UserError where experts are missing, or differ in rank or scale.
void stack_experts(PeftAdapter& file, Decoder& decoder, const std::filesystem::path& folder);

// The module names as adapter.targets and Adapter have them, of all modules of a file.
std::vector<std::string> modules_of(const PeftAdapter& file);

}  // namespace graft
