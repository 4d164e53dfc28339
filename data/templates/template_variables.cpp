#include "data/templates/template_variables.h"

namespace graft {
namespace {

using Json = nlohmann::ordered_json;

const Json* find_reasoning(const Json& message) {
  for (const char* field : {"reasoning_content", "thinking", "reasoning"}) {
    const auto found = message.find(field);
    if (found != message.end() && !found->is_null()) return &*found;
  }
  return nullptr;
}

}  // namespace

Json with_reasoning_aliases(const Json& messages) {
  Json result = Json::array();
  for (const Json& message : messages) {
    const Json* reasoning = message.is_object() ? find_reasoning(message) : nullptr;
    if (!reasoning) {
      result.push_back(message);
      continue;
    }
    Json aliased = Json::object();
    aliased["thinking"] = *reasoning;  // first, as transformers places it: a template may print the whole message
    for (const auto& [key, value] : message.items()) aliased[key] = value;
    aliased["reasoning_content"] = *reasoning;
    result.push_back(std::move(aliased));
  }
  return result;
}

Json template_variables(const Json& special_tokens, const Json& arguments, const Json& row, const Json& messages,
                        bool add_generation_prompt) {
  Json variables = Json::object();
  for (const Json* source : {&special_tokens, &arguments, &row}) {
    for (const auto& [key, value] : source->items()) {
      if (key != "messages") variables[key] = value;
    }
  }
  variables["messages"] = with_reasoning_aliases(messages);
  for (const char* optional : {"tools", "documents"}) {
    if (!variables.contains(optional)) variables[optional] = nullptr;
  }
  variables["add_generation_prompt"] = add_generation_prompt;
  return variables;
}

}  // namespace graft
