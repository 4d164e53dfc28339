// What a template is given to render, as transformers' apply_chat_template assembles it.
#pragma once
#include <nlohmann/json.hpp>

namespace graft {

// A message's reasoning_content, thinking or reasoning (the first that is not null) as reasoning_content, and as thinking where that is absent.
nlohmann::ordered_json with_reasoning_aliases(const nlohmann::ordered_json& messages);

// special_tokens, overridden by `arguments`, overridden by the row's keys; messages, tools, documents (null when absent) and
// add_generation_prompt. `messages` stands for row["messages"].
nlohmann::ordered_json template_variables(const nlohmann::ordered_json& special_tokens, const nlohmann::ordered_json& arguments,
                                          const nlohmann::ordered_json& row, const nlohmann::ordered_json& messages,
                                          bool add_generation_prompt);

}  // namespace graft
