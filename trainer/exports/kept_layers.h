// A model with fewer of its layers: a student that begins as a part of its teacher, to be trained until it speaks again.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/exports/export_source.h"

namespace graft {

// "0-4,10,28-29": layers counted from 0, ascending. UserError for anything else.
std::vector<int64_t> parse_layers(std::string_view text);

// What is left of a model: the kept layers, numbered anew. Its rules read the stored tensors of the layers that they were.
struct KeptLayers {
  DecoderSpec spec;
  WeightMap map;
  std::vector<BoundWeight> weights;
  std::map<const WeightRule*, const WeightRule*> rules;   // new ones, by the old
};

// UserError for a layer that is not there. `weights` must outlive the result.
KeptLayers keep_layers(const DecoderSpec& spec, const std::vector<BoundWeight>& weights, const std::vector<int64_t>& layers);

// Cuts a config.json with `num_layers` layers to those of `spec`: their number, and lists with an entry for each. UserError where it cannot say what is left: families
// whose kinds of layers follow from their position.
void cut_config(nlohmann::ordered_json& config, int64_t num_layers, const std::vector<int64_t>& layers, const DecoderSpec& spec);

}  // namespace graft
