#include "trainer/recipe/yaml_writer.h"

#include <algorithm>

#include <fmt/format.h>

#include "trainer/recipe/yaml_tree.h"

namespace graft {
namespace {

using Json = nlohmann::ordered_json;

// Texts that need no quotes: no YAML syntax in them, and no other type or null when read back.
bool is_plain(const std::string& text) {
  if (text.empty() || text.front() == ' ' || text.back() == ' ' || text.back() == ':') return false;
  if (std::string("-?:,[]{}#&*!|>'\"%@`~=<").find(text.front()) != std::string::npos && !text.starts_with("~/")) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const unsigned char character = text[i];
    if (character < 0x20 || character == 0x7F || std::string("{}[],\"").find(text[i]) != std::string::npos) return false;
    if (character >= 0x80) return false;   // quoted, so that line separators and byte order marks cannot matter
    if (character == ':' && text[i + 1] == ' ') return false;
    if (character == '#' && text[i - 1] == ' ') return false;
  }
  YamlValue value;
  value.kind = YamlValue::Kind::kScalar;
  value.text = text;
  const bool is_null = text == "null" || text == "Null" || text == "NULL" || text == "~";
  return !is_null && !value.as_boolean() && !value.as_number();
}

// Several lines that a literal block (|) keeps exactly.
bool is_literal(const std::string& text) {
  if (text.find('\n') == std::string::npos || text.front() == ' ' || text.front() == '\n' || text.ends_with("\n\n")) return false;
  if (text.find(" \n") != std::string::npos || text.back() == ' ') return false;
  return std::all_of(text.begin(), text.end(), [](unsigned char c) { return c == '\n' || (c >= 0x20 && c < 0x7F); });
}

std::string scalar(const Json& value) {
  if (value.is_string()) {
    const std::string& text = value.get_ref<const std::string&>();
    return is_plain(text) ? text : value.dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  if (value.is_number_float()) return fmt::format("{}", value.get<double>());   // shortest text that reads back to the same bits
  return value.dump();
}

void write(std::string& out, const Json& value, int indent);

void write_value(std::string& out, const Json& value, int indent) {
  if (value.is_string() && is_literal(value.get_ref<const std::string&>())) {
    std::string text = value;
    out += text.back() == '\n' ? " |\n" : " |-\n";
    if (text.back() == '\n') text.pop_back();
    size_t begin = 0;
    while (begin <= text.size()) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      if (end > begin) out += std::string(indent, ' ') + text.substr(begin, end - begin);
      out += '\n';
      begin = end + 1;
    }
  } else if (value.is_structured() && !value.empty()) {
    out += '\n';
    write(out, value, indent);
  } else {
    out += ' ' + scalar(value) + '\n';
  }
}

void write(std::string& out, const Json& value, int indent) {
  const std::string space(indent, ' ');
  if (value.is_array()) {
    for (const Json& item : value) {
      if (item.is_structured() && !item.empty()) {
        const size_t begin = out.size();
        write(out, item, indent + 2);
        out[begin + indent] = '-';
      } else {
        out += space + "-";
        write_value(out, item, indent + 2);
      }
    }
    return;
  }
  for (const auto& [key, member] : value.items()) {
    out += space + scalar(Json(key)) + ":";
    write_value(out, member, indent + 2);
  }
}

}  // namespace

std::string write_yaml(const Json& value) {
  std::string out;
  if (value.is_structured() && !value.empty()) write(out, value, 0);
  else out = scalar(value) + "\n";
  return out;
}

}  // namespace graft
