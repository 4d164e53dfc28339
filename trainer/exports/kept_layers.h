// A model with fewer of its layers: a student that begins as a part of its teacher, to be trained until it speaks again.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/exports/export_source.h"

namespace graft {

// "0-4,10,28-29": layers counted from 0, ascending. UserError for anything else.
std::vector<int64_t> parse_layers(std::string_view text);
// "best:15" to 15; none: no such text. UserError for a number that is none.
std::optional<int64_t> counted_layers(std::string_view text);

// "layers.7.attention.query.weight" to 7 and ".attention.query.weight"; -1: of no layer.
struct LayerName {
  int64_t layer = -1;
  std::string_view rest;
};
LayerName layer_name(std::string_view ours);

// What is left of a model. Its rules read the whole model's stored tensors: of the layers that they were, and (CutWeight) of some rows and columns.
struct PartialModel {
  DecoderSpec spec;
  WeightMap map;
  std::vector<BoundWeight> weights;
  std::map<const WeightRule*, const WeightRule*> rules;   // new ones, by the old
};

// The kept layers, numbered anew. UserError for a layer that is not there. `weights` must outlive the result.
PartialModel keep_layers(const DecoderSpec& spec, const std::vector<BoundWeight>& weights, const std::vector<int64_t>& layers);

// Cuts a config.json to what is left: the number of layers and lists with an entry for each, and widths. UserError where it cannot say that: families whose kinds of layers
// follow from their position, or that derive the size of a head from other sizes.
void cut_config(nlohmann::ordered_json& config, const ExportSource& source);

}  // namespace graft
