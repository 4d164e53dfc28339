#include <fmt/ranges.h>
#include "data/templates/message_forms.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "data/templates/jinja/repr.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::string_view, 7> kRoles = {"system", "developer", "user", "assistant", "tool", "function", "ipython"};

bool is_text_part(const Json& part) {
  return part.is_object() && part.value("type", Json("text")) == "text" && part.contains("text") && part["text"].is_string();
}

// Calls edit(function) for the "function" object of every tool call, or the call itself where it has none.
template <typename Edit>
void for_each_call(Json& messages, const Edit& edit) {
  for (Json& message : messages) {
    const auto calls = message.find("tool_calls");
    if (calls == message.end() || !calls->is_array()) continue;
    for (Json& call : *calls) {
      if (!call.is_object()) continue;
      const auto function = call.find("function");
      edit(function != call.end() && function->is_object() ? *function : call);
    }
  }
}

void arguments_to_mappings(Json& messages) {
  for_each_call(messages, [](Json& function) {
    const auto arguments = function.find("arguments");
    if (arguments == function.end() || !arguments->is_string()) return;
    Json parsed = Json::parse(arguments->get_ref<const std::string&>(), nullptr, false);
    if (parsed.is_object()) *arguments = std::move(parsed);
  });
}

// Text that was text in the row stays as it was written; mappings become what Python's json.dumps writes.
void arguments_to_text(Json& messages, const Json& original) {
  std::vector<std::string> texts;
  Json source = original;
  for_each_call(source, [&](Json& function) {
    const auto arguments = function.find("arguments");
    if (arguments == function.end() || arguments->is_null()) {
      texts.emplace_back();
    } else if (arguments->is_string()) {
      texts.push_back(arguments->get<std::string>());
    } else {
      jinja::Budget budget{RenderLimits{}};
      texts.push_back(jinja::json_dumps(budget, jinja::from_json(&budget, *arguments), {}));
    }
  });
  size_t next = 0;
  for_each_call(messages, [&](Json& function) {
    const std::string& text = texts[next++];
    if (function.contains("arguments") && !function["arguments"].is_null()) function["arguments"] = text;
  });
}

void none_to_empty(Json& messages) {
  for (Json& message : messages) {
    if (!message.contains("content") || message["content"].is_null()) message["content"] = "";
  }
}

void parts_to_text(Json& messages) {
  for (Json& message : messages) {
    const auto content = message.find("content");
    if (content == message.end() || !content->is_array()) continue;
    std::string text;
    for (const Json& part : *content) text += part.at("text").get_ref<const std::string&>();
    *content = text;
  }
}

}  // namespace

void check_roles(const Json& messages, const std::string& name) {
  if (!messages.is_array() || messages.empty()) fail("template", "{}: expected \"messages\" to be a list of messages, got {} — give at least one", name, messages.is_array() ? "an empty list" : messages.type_name());
  for (size_t i = 0; i < messages.size(); ++i) {
    const Json& message = messages[i];
    const auto role = message.is_object() ? message.find("role") : message.end();
    if (!message.is_object() || role == message.end() || !role->is_string()) {
      fail("template", "{}: expected message {} to be an object with a \"role\" — see the data documentation", name, i + 1);
    }
    if (std::find(kRoles.begin(), kRoles.end(), role->get_ref<const std::string&>()) == kRoles.end()) {
      fail("template", "{}: message {}: unknown role \"{}\"; known are {}", name, i + 1, role->get_ref<const std::string&>(), fmt::join(kRoles, ", "));
    }
    const auto content = message.find("content");
    if (content == message.end() || !content->is_array()) continue;
    if (!std::all_of(content->begin(), content->end(), is_text_part)) {
      fail("template", "{}: message {}: expected content parts {{\"type\": \"text\", \"text\": ...}} — images and sound cannot be trained on", name, i + 1);
    }
  }
}

std::vector<Json> message_forms(const Json& messages) {
  std::vector<Json> forms;
  // In order of the number of changes: none, one, two, three.
  for (const int changes : {0, 1, 2, 4, 3, 5, 6, 7}) {
    Json form = messages;
    arguments_to_mappings(form);
    if (changes & 1) arguments_to_text(form, messages);
    if (changes & 2) none_to_empty(form);
    if (changes & 4) parts_to_text(form);
    if (std::find(forms.begin(), forms.end(), form) == forms.end()) forms.push_back(std::move(form));
  }
  return forms;
}

}  // namespace graft
