// Text models inside a vision model's configuration and checkpoint (mistral3 around ministral3 or mistral, qwen3_5 around qwen3_5_text): the text part is loaded and trained,
// under the names that it has alone; the rest is skipped by name.
#pragma once
#include <nlohmann/json.hpp>

#include "checkpoints/weight_map.h"

namespace graft {

// Whether config.json is such a wrapper, known by its model_type.
bool wraps_text(const nlohmann::ordered_json& config);
// The text model's own configuration. UserError when the wrapper holds none.
nlohmann::ordered_json wrapped_text_config(const nlohmann::ordered_json& config);
// Lets the text model's map find its tensors in the wrapper's checkpoint.
void add_wrapper_names(WeightMap& map);

}  // namespace graft
