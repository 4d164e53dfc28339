// Chat templates disagree about the form of messages: some want tool-call arguments as a mapping, some as JSON text; some join a content
// that is None or a list of parts. These are the same messages in other forms, tried in the order of fewest changes.
#pragma once
#include <vector>

#include <nlohmann/json.hpp>

namespace graft {

// Throws UserError when messages is not a list of objects with a known role ("system", "developer", "user", "assistant", "tool",
// "function", "ipython"), with content that is text, null, or parts {"type": "text", "text": ...}. `name` is the template's.
void check_roles(const nlohmann::ordered_json& messages, const std::string& name);

// First the messages with JSON-text arguments parsed to mappings; then, as far as they differ: arguments as JSON text, None content as "",
// lists of text parts joined, and their combinations.
std::vector<nlohmann::ordered_json> message_forms(const nlohmann::ordered_json& messages);

}  // namespace graft
