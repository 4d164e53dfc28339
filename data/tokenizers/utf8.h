// Reading UTF-8 that may be broken: a byte that starts no well-formed sequence is one character of its own, of no Unicode
// class, so text of any origin splits and encodes byte for byte.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace graft {

struct Utf8Char {
  uint32_t code = 0;    // kInvalidUtf8 for a stray byte
  uint32_t length = 1;  // bytes
};
inline constexpr uint32_t kInvalidUtf8 = 0x110000;

// The character at `position` (< text.size()). Well-formed as Unicode table 3-7 says: no surrogates, no overlong forms.
inline Utf8Char decode_utf8(std::string_view text, size_t position) {
  const auto byte = [&](size_t i) -> uint32_t { return static_cast<unsigned char>(text[i]); };
  const uint32_t lead = byte(position);
  if (lead < 0x80) return {lead, 1};
  const size_t left = text.size() - position;
  const auto continues = [&](size_t i, uint32_t low = 0x80, uint32_t high = 0xBF) {
    return i < left && byte(position + i) >= low && byte(position + i) <= high;
  };
  if (lead >= 0xC2 && lead <= 0xDF) {
    if (continues(1)) return {(lead & 0x1F) << 6 | (byte(position + 1) & 0x3F), 2};
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    if (continues(1, lead == 0xE0 ? 0xA0 : 0x80, lead == 0xED ? 0x9F : 0xBF) && continues(2)) {
      return {(lead & 0x0F) << 12 | (byte(position + 1) & 0x3F) << 6 | (byte(position + 2) & 0x3F), 3};
    }
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    if (continues(1, lead == 0xF0 ? 0x90 : 0x80, lead == 0xF4 ? 0x8F : 0xBF) && continues(2) && continues(3)) {
      return {(lead & 0x07) << 18 | (byte(position + 1) & 0x3F) << 12 | (byte(position + 2) & 0x3F) << 6 | (byte(position + 3) & 0x3F), 4};
    }
  }
  return {kInvalidUtf8, 1};
}

// The start of the character that ends at `position` (> 0); a stray byte counts as one character.
inline size_t previous_utf8(std::string_view text, size_t position) {
  for (size_t length = 1; length <= 4 && length <= position; ++length) {
    const size_t start = position - length;
    const Utf8Char found = decode_utf8(text, start);
    if (found.code != kInvalidUtf8 && found.length == length) return start;
  }
  return position - 1;
}

// `code` < 0x110000.
void append_utf8(std::string& text, uint32_t code);
// Every maximal broken part becomes one U+FFFD, as Rust's String::from_utf8_lossy (which the reference library decodes with).
std::string to_valid_utf8(std::string_view bytes);

}  // namespace graft
