#pragma once
#include <cstddef>
#include <vector>

#include <nlohmann/json.hpp>

#include "data/templates/conversation.h"

namespace graft {

struct TurnStability {
  size_t message = 0;    // index of an assistant message
  bool stable = true;    // its text, and all before it, is the same when the conversation ends there and when it goes on
  bool as_served = true; // the text before it is what a server would ask with
};

// For every assistant message of the row: does the template rewrite it (drop its think block, say) once later turns are added?
// Errors as encode_conversation's, but for such turns.
std::vector<TurnStability> turn_stability(const TemplateContext& context, const nlohmann::ordered_json& row);

}  // namespace graft
