#include "data/tokenizers/byte_alphabet.h"

#include <array>

#include "data/tokenizers/utf8.h"

namespace graft {
namespace {

struct Alphabet {
  std::array<std::string, 256> spelling;
  std::array<int, 0x144> byte;  // code point -> byte, or -1

  Alphabet() {
    byte.fill(-1);
    uint32_t next = 0x100;
    for (uint32_t value = 0; value < 256; ++value) {
      const bool printable = (value >= 0x21 && value <= 0x7E) || (value >= 0xA1 && value <= 0xAC) || value >= 0xAE;
      const uint32_t code = printable ? value : next++;
      append_utf8(spelling[value], code);
      byte[code] = static_cast<int>(value);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet made;
  return made;
}

}  // namespace

std::string spell_bytes(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char c : bytes) out += alphabet().spelling[static_cast<unsigned char>(c)];
  return out;
}

std::optional<std::string> unspell_bytes(std::string_view spelling) {
  const Alphabet& letters = alphabet();
  std::string out;
  for (size_t i = 0; i < spelling.size();) {
    const Utf8Char next = decode_utf8(spelling, i);
    if (next.code >= letters.byte.size() || letters.byte[next.code] < 0) return std::nullopt;
    out += static_cast<char>(letters.byte[next.code]);
    i += next.length;
  }
  return out;
}

}  // namespace graft
