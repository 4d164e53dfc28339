#include "trainer/models/families/wrapped_text.h"

#include <algorithm>

#include "kernels/common/error.h"

namespace graft {

using nlohmann::ordered_json;

bool wraps_text(const ordered_json& config) {
  const auto type = config.value("model_type", ordered_json());
  return type == "mistral3" || type == "qwen3_5" || type == "qwen3_5_moe";
}

ordered_json wrapped_text_config(const ordered_json& config) {
  if (!config.contains("text_config") || !config["text_config"].is_object() || !config["text_config"].contains("model_type")) {
    fail("models", "expected text_config with its model_type in a {} configuration, got none — the file is damaged", config.value("model_type", std::string("?")));
  }
  auto text = config["text_config"];
  if (!text.contains("tie_word_embeddings") && config.contains("tie_word_embeddings")) text["tie_word_embeddings"] = config["tie_word_embeddings"];
  return text;
}

void add_wrapper_names(WeightMap& map) {
  // As hub files are, and as transformers 5 saves them.
  map.hub_aliases.insert(map.hub_aliases.end(), {{"model.", "language_model.model."}, {"lm_head.", "language_model.lm_head."}, {"model.", "model.language_model."}});
  map.skipped.insert(map.skipped.end(), {"vision_tower.*", "multi_modal_projector.*", "model.vision_tower.*", "model.multi_modal_projector.*", "visual.*", "model.visual.*"});
  if (std::find(map.ignored.begin(), map.ignored.end(), "lm_head.weight") != map.ignored.end()) map.ignored.push_back("language_model.lm_head.weight");
}

}  // namespace graft
