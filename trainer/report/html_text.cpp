#include "trainer/report/html_text.h"

#include <cmath>

#include <fmt/format.h>

#include "trainer/report/progress.h"

namespace graft::html {
namespace {

// Bytes of the valid UTF-8 character at the front; 0 when there is none (Unicode 15, table 3-7).
size_t character_length(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto follows = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const unsigned first = byte(0), second = byte(1);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return follows(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const bool in_range = first == 0xE0 ? second >= 0xA0 : first == 0xED ? second < 0xA0 : true;   // no overlong forms, no surrogates
    return in_range && follows(1) && follows(2) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const bool in_range = first == 0xF0 ? second >= 0x90 : first == 0xF4 ? second < 0x90 : true;
    return in_range && follows(1) && follows(2) && follows(3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

std::string escape(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  while (!text.empty()) {
    const size_t length = character_length(text);
    const unsigned char character = text[0];
    if (length == 0 || character == 0x7F || (character < 0x20 && character != '\n' && character != '\t')) out += "\xEF\xBF\xBD";
    else if (character == '&') out += "&amp;";
    else if (character == '<') out += "&lt;";
    else if (character == '>') out += "&gt;";
    else if (character == '"') out += "&quot;";
    else if (character == '\'') out += "&#39;";
    else out += text.substr(0, length);
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return out;
}

std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

std::string small_number(double value) {
  if (value == 0) return "0";
  if (std::abs(value) < 1e-3) return fmt::format("{:.1e}", value);
  return fmt::format("{:.3g}", value);
}

std::string bytes(double count) {
  const char* units[] = {"B", "kB", "MB", "GB", "TB"};
  int unit = 0;
  for (; std::abs(count) >= 1000 && unit < 4; ++unit) count /= 1000;
  return unit == 0 ? fmt::format("{:.0f} B", count) : fmt::format("{:.3g} {}", count, units[unit]);
}

std::string minutes(double seconds) {
  const auto total = static_cast<int64_t>(std::clamp(seconds, 0.0, 9e12) + 0.5);
  if (total < 60) return fmt::format("{} s", total);
  if (total < 3600) return fmt::format("{} min {:02} s", total / 60, total % 60);
  return fmt::format("{} h {:02} min", total / 3600, total / 60 % 60);
}

std::string count(double value) { return format_count(value); }

std::optional<double> number(const Json& object, std::string_view key) {
  const Json& value = child(object, key);
  if (!value.is_number() || !std::isfinite(value.get<double>())) return std::nullopt;
  return value.get<double>();
}

std::string text(const Json& object, std::string_view key) {
  const Json& value = child(object, key);
  return value.is_string() ? value.get<std::string>() : std::string();
}

const Json& child(const Json& object, std::string_view key) {
  static const Json kNull;
  if (!object.is_object()) return kNull;
  const auto found = object.find(std::string(key));
  return found == object.end() ? kNull : *found;
}

}  // namespace graft::html
