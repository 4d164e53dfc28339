#include "data/tokenizers/charsmap.h"

#include <utf8proc.h>

#include <cstring>

#include "data/tokenizers/utf8.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

// A unit of the double array (github.com/s-yata/darts-clone): its label, the offset to its children, whether a value follows.
uint32_t label_of(uint32_t unit) { return unit & ((1u << 31) | 0xFF); }
uint32_t offset_of(uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }
bool has_value(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t value_of(uint32_t unit) { return unit & ((1u << 31) - 1); }

}  // namespace

Charsmap::Charsmap(std::string bytes) : bytes_(std::move(bytes)) {
  uint32_t size = 0;
  if (bytes_.size() >= 4) std::memcpy(&size, bytes_.data(), 4);
  if (size < 4 || size % 4 != 0 || size > bytes_.size() - 4) {
    fail("tokenizers", "expected a precompiled charsmap, got {} bytes that are none (its trie has {}) — is the file broken?", bytes_.size(), size);
  }
  units_.resize(size / 4);
  std::memcpy(units_.data(), bytes_.data() + 4, size);
  texts_ = std::string_view(bytes_).substr(4 + size);
}

std::optional<Charsmap::Match> Charsmap::match(std::string_view text, bool first) const {
  std::optional<Match> found;
  size_t node = offset_of(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    node ^= byte;
    if (byte == 0 || node >= units_.size() || label_of(units_[node]) != byte) break;
    const uint32_t unit = units_[node];
    node ^= offset_of(unit);
    if (!has_value(unit) || node >= units_.size()) continue;
    const std::string_view rest = texts_.substr(std::min<size_t>(value_of(units_[node]), texts_.size()));
    found = Match{i + 1, rest.substr(0, std::min(rest.find('\0'), rest.size()))};
    if (first) break;
  }
  return found;
}

std::string Charsmap::replace_graphemes(std::string_view text) const {
  std::string out;
  out.reserve(text.size());
  const auto put_characters = [&](std::string_view grapheme) {
    for (size_t i = 0; i < grapheme.size();) {
      const std::string_view character = grapheme.substr(i, decode_utf8(grapheme, i).length);
      const auto found = shortest(character);
      out += found ? found->replacement : character;
      i += character.size();
    }
  };
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin;
    utf8proc_int32_t state = 0;
    for (uint32_t previous = 0; end < text.size();) {
      const Utf8Char next = decode_utf8(text, end);
      const auto code = next.code == kInvalidUtf8 ? 0xFFFD : next.code;
      if (end > begin && utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(previous), static_cast<utf8proc_int32_t>(code), &state)) break;
      previous = code;
      end += next.length;
    }
    const std::string_view grapheme = text.substr(begin, end - begin);
    const auto found = grapheme.size() < 6 ? shortest(grapheme) : std::nullopt;
    if (found) {
      out += found->replacement;
    } else {
      put_characters(grapheme);
    }
    begin = end;
  }
  return out;
}

}  // namespace graft
