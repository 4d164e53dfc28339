// quantization_config of config.json, as the engines of each form read it.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "checkpoints/codecs/hub_layouts.h"

namespace graft {

// plain: names of linear modules that stay as they are, the head among them.
nlohmann::ordered_json quantized_hub_config(HubLayout layout, int64_t group, const std::vector<std::string>& plain);

}  // namespace graft
