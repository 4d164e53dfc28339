// Small pieces of HTML: escaped text, numbers as people read them, values of JSON that may be missing.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace graft::html {

using Json = nlohmann::ordered_json;

// For element content and quoted attributes: & < > " ' become references, invalid UTF-8 and control characters U+FFFD.
std::string escape(std::string_view text);

std::string percent(double share);          // 91.4 %
std::string small_number(double value);     // 3.1e-05, 0.0123, 1.25, 0
std::string bytes(double count);            // 98.4 MB
std::string minutes(double seconds);        // 45 s, 7 min 12 s, 2 h 05 min
std::string count(double value);            // 12,345

std::optional<double> number(const Json& object, std::string_view key);   // nothing unless a finite number
std::string text(const Json& object, std::string_view key);               // empty unless a text
const Json& child(const Json& object, std::string_view key);              // null unless there

}  // namespace graft::html
