// The WeightMap of a spec: which tensors there are follows from the spec, what they are called from a family's table of names.
#pragma once
#include <map>
#include <string>

#include "checkpoints/weight_map.h"
#include "trainer/models/decoder_spec.h"

namespace graft {

struct PartName {
  std::string hub, gguf;
};

struct WeightNames {
  std::string hub_layers = "model.layers.";    // then the layer's number and a dot
  std::string gguf_layers = "blk.";
  std::map<std::string, PartName> model;       // "embedding", "embedding_norm", "position_embedding", "final_norm", "head"
  // "mixer_norm", "attention.query", ..., below the layer's prefix; without .weight and .bias. "experts.gate", "up" and "down" have a '*' for the expert's
  // number; "experts.gate_up" and "experts.all_down" are the hub's stacked layout (and what PEFT calls the parameters that experts' adapters sit on).
  std::map<std::string, PartName> layer;
};

// The names of Llama, which most families share.
WeightNames llama_names();

WeightMap weight_map_of(const DecoderSpec& spec, const WeightNames& names);

// Rules of the matrices and biases of one part in all layers, to set how files store them: for_part(map, "attention.query", f).
template <typename Function>
void for_part(WeightMap& map, const std::string& part, const Function& function) {
  for (auto& rule : map.rules) {
    const auto name = rule.ours.substr(0, rule.ours.rfind('.'));
    if (name.starts_with("layers.") ? name.substr(name.find('.', 7) + 1) == part : name == part) function(rule);
  }
}

// As llama.cpp's converter writes llama and what it treats so: rows of query and key as neighbouring rotary pairs.
void set_gguf_rotary_pairs(const DecoderSpec& spec, WeightMap& map);

}  // namespace graft
