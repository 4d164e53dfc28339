// Bytes of text files: reading, byte-order marks, UTF-8 checks.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace graft {

// The whole file. Throws UserError when it is not a readable regular file.
std::string read_text_file(const std::filesystem::path& path);
// Bytes of a leading UTF-8 byte-order mark: 3 or 0.
size_t byte_order_mark(std::string_view text);
// Offset of the first byte that is no valid UTF-8 (overlong forms and surrogates are invalid); nullopt if all is.
std::optional<size_t> first_invalid_utf8(std::string_view text);
// "not UTF-8: byte 0xE9 at offset 17 of the file" with a hint when the file looks like UTF-16.
std::string describe_invalid_utf8(std::string_view file, size_t offset);
// Code points of valid UTF-8, for columns in error messages.
int64_t count_code_points(std::string_view text);
// True when the text has nothing but ASCII white space.
bool is_blank(std::string_view text);

}  // namespace graft
