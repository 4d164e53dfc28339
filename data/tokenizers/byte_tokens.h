// What becomes of text without a token: the tokens <0x00> to <0xFF> of its bytes where there are such, else the unknown token.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

struct ByteTokens {
  std::array<int32_t, 256> ids{};  // -1: none
  bool used = false;
  int32_t unknown = -1;            // -1: left out
  bool fuse_unknown = true;
  std::string unknown_text;        // the unknown token's spelling where text may be spelled so: it is that token, not bytes

  // after_unknown: the same piece's last token was the unknown one, and stays so.
  void append(std::string_view text, bool& after_unknown, std::vector<int32_t>& out) const;
};

// "<0xE9>", and what byte a spelling of this form stands for.
std::string spell_byte_token(unsigned char byte);
std::optional<unsigned char> byte_of_token(std::string_view spelling);

}  // namespace graft
