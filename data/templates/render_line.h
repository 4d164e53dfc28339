// One line of `graft render`: what transformers' apply_chat_template makes of it, with token ids and mask.
#pragma once
#include <nlohmann/json.hpp>

#include "data/templates/conversation.h"

namespace graft {

// line: {"messages", "tools"?, "documents"?, "add_generation_prompt"? (default false), other keys: arguments of the template}. The messages
// are rendered as they are: no role is checked, no argument parsed.
// Returns {"text", "ids", "mask"}; where the assistant's tokens cannot be told apart, mask is null and "mask_error" says why.
// Or {"error": {"kind", "type", "message"}, "where"}: kind raise_exception, runtime, bound (jinja/error.h) or input.
nlohmann::ordered_json render_line(const TemplateContext& context, const nlohmann::ordered_json& line);

}  // namespace graft
