// Text out of a file that nobody vouches for, made fit for a message on a terminal.
#pragma once
#include <string>
#include <string_view>

#include <fmt/format.h>

namespace graft {

// Control characters and quotes escaped, cut after 120 bytes.
inline std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 120)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f)
      out += fmt::format("\\x{:02x}", byte);
    else if (c == '"' || c == '\\')
      (out += '\\') += c;
    else
      out += c;
  }
  return out + (text.size() > 120 ? "..." : "");
}

// The same in quotation marks.
inline std::string quote(std::string_view text) { return '"' + escaped(text) + '"'; }

}  // namespace graft
