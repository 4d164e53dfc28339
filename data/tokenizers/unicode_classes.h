// What the reference library takes a code point for (see tests/data/tokenizers/generate_unicode_classes.py).
#pragma once
#include <cstdint>
#include <string_view>

#include "data/tokenizers/utf8.h"

namespace graft {

enum UnicodeClass : uint32_t {
  kLetter = 1 << 0,         // \p{L}
  kNumber = 1 << 1,         // \p{N}
  kMark = 1 << 2,           // \p{M}
  kSpace = 1 << 3,          // \s
  kUppercase = 1 << 4,      // \p{Lu}
  kTitlecase = 1 << 5,      // \p{Lt}
  kLowercase = 1 << 6,      // \p{Ll}
  kModifier = 1 << 7,       // \p{Lm}; \p{Lo} is a letter of none of these four
  kPunctuation = 1 << 8,    // \p{P}
  kSymbol = 1 << 9,         // \p{S}
  kHan = 1 << 10,           // \p{Han}
  kDecimal = 1 << 11,       // \p{Nd}
  kNumeric = 1 << 12,       // Rust's char::is_numeric, for the pre-tokenizer Digits
  kWord = 1 << 13,          // \w of Rust's regex crate, for the borders of single_word added tokens
  kCombining = 1 << 14,     // has a combining class in the library's NFC tables (Unicode 10)
  kDecomposing = 1 << 15,   // NFD changes it
  kNfcChanging = 1 << 16,   // NFC changes it
  kNfkdChanging = 1 << 17,  // NFKD changes it
};

// 0 for unassigned code points and for kInvalidUtf8.
uint32_t unicode_classes(uint32_t code);

struct ClassedChar {
  uint32_t classes = 0;
  uint32_t code = 0;
  uint32_t length = 1;
  bool is(uint32_t any_of) const { return (classes & any_of) != 0; }
};
inline ClassedChar classed_char(std::string_view text, size_t position) {
  const Utf8Char found = decode_utf8(text, position);
  return {unicode_classes(found.code), found.code, found.length};
}

}  // namespace graft
