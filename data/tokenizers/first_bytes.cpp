#include "data/tokenizers/first_bytes.h"

#include <charconv>
#include <utility>

#include "data/tokenizers/utf8.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

using Range = std::pair<uint32_t, uint32_t>;

// The code points whose UTF-8 begins with `byte`.
std::optional<Range> begun_by(uint32_t byte) {
  if (byte < 0x80) return Range{byte, byte};
  if (byte >= 0xC2 && byte <= 0xDF) return Range{(byte & 0x1F) << 6, (byte & 0x1F) << 6 | 0x3F};
  if (byte >= 0xE0 && byte <= 0xEF) return Range{byte == 0xE0 ? 0x800 : (byte & 0x0F) << 12, byte == 0xED ? 0xD7FF : (byte & 0x0F) << 12 | 0xFFF};
  if (byte >= 0xF0 && byte <= 0xF4) return Range{byte == 0xF0 ? 0x10000 : (byte & 0x07) << 18, byte == 0xF4 ? 0x10FFFF : (byte & 0x07) << 18 | 0x3FFFF};
  return std::nullopt;
}

}  // namespace

std::string first_bytes_pattern(const ByteSet& bytes) {
  std::string pattern;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const auto range = begun_by(byte);
    if (!bytes[byte] || !range) continue;
    pattern += fmt::format(R"(\x{{{:X}}})", range->first);
    if (range->second > range->first) pattern += fmt::format(R"(-\x{{{:X}}})", range->second);
  }
  return pattern.empty() ? "" : "[" + pattern + "]";
}

std::optional<ByteSet> read_first_bytes_pattern(std::string_view pattern) {
  ByteSet bytes;
  constexpr std::string_view kOpen = R"(\x{)";
  for (size_t at = pattern.find(kOpen); at != std::string_view::npos; at = pattern.find(kOpen, at + 1)) {
    uint32_t code = 0;
    const char* digits = pattern.data() + at + kOpen.size();
    std::from_chars(digits, pattern.data() + pattern.size(), code, 16);
    if (code >= 0x110000) return std::nullopt;
    std::string character;
    append_utf8(character, code);
    bytes.set(static_cast<unsigned char>(character[0]));
  }
  if (bytes.none() || first_bytes_pattern(bytes) != pattern) return std::nullopt;
  return bytes;
}

}  // namespace graft
