#include "data/rows/utf8_text.h"

#include <algorithm>
#include <fstream>

#include <utf8proc.h>

#include "kernels/common/error.h"

namespace graft {

std::string read_text_file(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    fail("data", "expected a file, got {} ({}) — give the path of a data file", error ? error.message() : "no regular file",
         path.string());
  }
  std::ifstream stream(path, std::ios::binary);
  std::string text(std::filesystem::file_size(path, error), '\0');
  if (!stream || error || !stream.read(text.data(), static_cast<std::streamsize>(text.size()))) {
    fail("data", "expected a readable file, got a read error ({}) — check its permissions", path.string());
  }
  return text;
}

size_t byte_order_mark(std::string_view text) { return text.starts_with("\xEF\xBB\xBF") ? 3 : 0; }

std::optional<size_t> first_invalid_utf8(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    utf8proc_int32_t code_point = 0;
    const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at,
                                         static_cast<utf8proc_ssize_t>(text.size() - at), &code_point);
    if (length <= 0) return at;
    at += static_cast<size_t>(length);
  }
  return std::nullopt;
}

std::string describe_invalid_utf8(std::string_view file, size_t offset) {
  std::string text =
      fmt::format("not UTF-8: byte 0x{:02X} at offset {} of the file", static_cast<unsigned char>(file[offset]), offset);
  if (file.starts_with("\xFF\xFE") || file.starts_with("\xFE\xFF")) text += " (it begins like UTF-16: save it as UTF-8)";
  return text;
}

int64_t count_code_points(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; });
}

bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == std::string_view::npos; }

}  // namespace graft
