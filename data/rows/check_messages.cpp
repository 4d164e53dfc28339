#include <algorithm>
#include <array>

#include "data/rows/record_to_row.h"
#include "data/rows/row_problems.h"

namespace graft {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::string_view, 7> kRoles = {"system", "developer", "user", "assistant", "tool", "function", "ipython"};

std::string type_of(const Json& value) { return value.is_null() ? "null" : fmt::format("a JSON {}", value.type_name()); }

bool is_tool_role(const std::string& role) { return role == "tool" || role == "function" || role == "ipython"; }

void check_parts(const Json& parts, size_t number) {
  for (const Json& part : parts) {
    const bool is_text =
        part.is_object() && part.value("type", Json("text")) == "text" && part.contains("text") && part["text"].is_string();
    if (!is_text) {
      fail_row(
          "message {}: expected content parts {{\"type\": \"text\", \"text\": ...}}; images and sound cannot be trained on",
          number);
    }
  }
}

void check_message(const Json& message, size_t number) {
  if (!message.is_object()) fail_row("message {}: expected an object with role and content, got {}", number, type_of(message));
  const auto role = message.find("role");
  if (role == message.end() && message.contains("from") && message.contains("value")) {
    fail_row(
        "message {}: \"from\" and \"value\" (ShareGPT): rename them to \"role\" (human: user, gpt: assistant) and \"content\"",
        number);
  }
  if (role == message.end()) fail_row("message {} has no \"role\"", number);
  if (!role->is_string()) fail_row("message {}: expected a text as role, got {}", number, type_of(*role));
  const std::string& name = role->get_ref<const std::string&>();
  if (std::find(kRoles.begin(), kRoles.end(), name) == kRoles.end()) {
    fail_row("message {}: unknown role \"{}\"; known are {}", number, name,
             "system, developer, user, assistant, tool, function, ipython");
  }
  const auto calls = message.find("tool_calls");
  const bool has_calls = calls != message.end() && !calls->is_null();
  if (has_calls && (!calls->is_array() || calls->empty()))
    fail_row("message {}: expected tool_calls to be a list with entries", number);
  const auto content = message.find("content");
  if (content == message.end() || content->is_null()) {
    if (!has_calls) fail_row("message {} ({}) has {} content", number, name, content == message.end() ? "no" : "null");
  } else if (content->is_array()) {
    check_parts(*content, number);
  } else if (!content->is_string() && !(content->is_object() && is_tool_role(name))) {
    fail_row("message {} ({}): expected text as content, got {}", number, name, type_of(*content));
  }
}

}  // namespace

std::string content_text(const Json& message) {
  const auto content = message.find("content");
  if (content == message.end()) return "";
  if (content->is_string()) return content->get<std::string>();
  std::string text;
  if (content->is_array()) {
    for (const Json& part : *content) text += part.at("text").get_ref<const std::string&>();
  }
  return text;
}

std::string check_messages(const Json& messages) {
  if (!messages.is_array()) fail_row("expected \"messages\" to be a list, got {}", type_of(messages));
  if (messages.empty()) fail_row("\"messages\" is empty");
  std::string text;
  for (size_t index = 0; index < messages.size(); ++index) {
    check_message(messages[index], index + 1);
    if (messages[index]["role"] != "user") continue;
    if (!text.empty()) text += '\n';
    text += content_text(messages[index]);
  }
  return text;
}

}  // namespace graft
