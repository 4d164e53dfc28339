// How PEFT names and lays out the factors of an Adapter in its files: rows of B as the hub's weights lie, experts as one parameter.
#pragma once
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

// The module names as adapter.targets and Adapter have them, of all modules of a file.
std::vector<std::string> modules_of(const PeftAdapter& file);

}  // namespace graft
