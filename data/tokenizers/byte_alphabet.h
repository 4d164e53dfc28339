// GPT-2's spelling of bytes as printable characters ("Ġ" is a space), in which byte-level vocabularies are written. A byte that is
// a printable Latin-1 character (0x21-0x7E, 0xA1-0xAC, 0xAE-0xFF) is that character; the other 68 are U+0100, U+0101, ... in order.
#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace graft {

std::string spell_bytes(std::string_view bytes);
// nullopt when a character is not of the alphabet (an added token's text, say).
std::optional<std::string> unspell_bytes(std::string_view spelling);

}  // namespace graft
