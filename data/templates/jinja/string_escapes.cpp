#include "data/templates/jinja/string_escapes.h"

#include <fmt/format.h>

#include "data/templates/jinja/python_text.h"

namespace graft::jinja {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool read_hex(std::string_view literal, size_t& position, int digits, char32_t& code_point) {
  code_point = 0;
  for (int i = 0; i < digits; ++i, ++position) {
    const int digit = position < literal.size() ? hex_digit(literal[position]) : -1;
    if (digit < 0) return false;
    code_point = code_point << 4 | static_cast<char32_t>(digit);
  }
  return true;
}

// What Python's "backslashreplace" made of a letter beyond ASCII that followed a backslash.
std::string python_escape(char32_t c) {
  const uint32_t code = c;
  return code < 0x100 ? fmt::format("x{:02x}", code) : code < 0x10000 ? fmt::format("u{:04x}", code) : fmt::format("U{:08x}", code);
}

}  // namespace

const char* unescape_string(std::string_view literal, std::string& text) {
  for (size_t i = 0; i < literal.size();) {
    if (literal[i] != '\\') {
      text += literal[i++];
      continue;
    }
    if (++i == literal.size()) return "\\ at end of string";
    const char c = literal[i];
    if (static_cast<unsigned char>(c) >= 0x80) {
      text += '\\' + python_escape(decode_code_point(literal, i));
      continue;
    }
    ++i;
    switch (c) {
      case '\n': break;  // the line goes on
      case '\\':
      case '\'':
      case '"': text += c; break;
      case 'a': text += '\a'; break;
      case 'b': text += '\b'; break;
      case 'f': text += '\f'; break;
      case 'n': text += '\n'; break;
      case 'r': text += '\r'; break;
      case 't': text += '\t'; break;
      case 'v': text += '\v'; break;
      case 'x':
      case 'u':
      case 'U': {
        char32_t code_point = 0;
        if (!read_hex(literal, i, c == 'x' ? 2 : c == 'u' ? 4 : 8, code_point)) return "truncated \\x, \\u or \\U escape";
        if (code_point > 0x10FFFF) return "illegal Unicode character";
        if (code_point >= 0xD800 && code_point < 0xE000) return "a lone surrogate is not text";
        append_code_point(text, code_point);
        break;
      }
      case 'N': return "\\N escapes are not supported";
      default:
        if (c >= '0' && c <= '7') {
          char32_t code_point = static_cast<char32_t>(c - '0');
          for (int digit = 0; digit < 2 && i < literal.size() && literal[i] >= '0' && literal[i] <= '7'; ++digit, ++i) {
            code_point = code_point << 3 | static_cast<char32_t>(literal[i] - '0');
          }
          append_code_point(text, code_point);
        } else {
          text += '\\';
          text += c;
        }
    }
  }
  return nullptr;
}

}  // namespace graft::jinja
