#pragma once
#include <string>
#include <string_view>

namespace graft::jinja {

// The escapes of a Python string literal (\n, \x41, \u00e9, \101, ...); an unknown escape stays as it is written.
// Returns what is wrong, or null.
const char* unescape_string(std::string_view literal, std::string& text);

}  // namespace graft::jinja
