#include "data/tokenizers/byte_tokens.h"

#include <algorithm>

namespace graft {

void ByteTokens::append(std::string_view text, bool& after_unknown, std::vector<int32_t>& out) const {
  const auto id_of = [&](char c) { return ids[static_cast<unsigned char>(c)]; };
  const bool spelled = !unknown_text.empty() && text == unknown_text;
  if (used && !spelled && std::all_of(text.begin(), text.end(), [&](char c) { return id_of(c) >= 0; })) {
    for (const char c : text) out.push_back(id_of(c));
    after_unknown = false;
    return;
  }
  if (unknown >= 0 && !(fuse_unknown && after_unknown)) out.push_back(unknown);
  after_unknown = true;
}

std::string spell_byte_token(unsigned char byte) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  return {'<', '0', 'x', kDigits[byte >> 4], kDigits[byte & 15], '>'};
}

std::optional<unsigned char> byte_of_token(std::string_view spelling) {
  if (spelling.size() != 6 || !spelling.starts_with("<0x") || spelling[5] != '>') return std::nullopt;
  const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; };
  const int high = digit(spelling[3]), low = digit(spelling[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<unsigned char>(high * 16 + low);
}

}  // namespace graft
