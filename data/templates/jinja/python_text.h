// Python's view of text on UTF-8 strings: code points, white space, case. Bytes that are not UTF-8 count as one code point each.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace graft::jinja {

int64_t count_code_points(std::string_view text);
char32_t decode_code_point(std::string_view text, size_t& position);  // advances position; position < text.size()
void append_code_point(std::string& text, char32_t code_point);
size_t byte_offset(std::string_view text, int64_t code_point_index);  // of that code point; text.size() past the end
std::vector<size_t> code_point_offsets(std::string_view text);       // byte offset of each code point, and the end

// str.isspace(): what strip(), split() and re's \s take as white space.
bool is_python_space(char32_t code_point);
bool is_printable(char32_t code_point);  // str.isprintable(): what repr() does not escape

// chars null: white space; else a set of characters.
std::string_view strip(std::string_view text, const std::string_view* chars, bool left, bool right);

// Full case mapping (SpecialCasing.txt's unconditional rules, and the final sigma), as str.lower/upper/title/capitalize do.
std::string lower(std::string_view text);
std::string upper(std::string_view text);
std::string title(std::string_view text);
std::string capitalize(std::string_view text);
std::string swapcase(std::string_view text);
bool is_lower(std::string_view text);  // str.islower()
bool is_upper(std::string_view text);

// str.split and friends. maxsplit < 0: no limit.
std::vector<std::string_view> split_white_space(std::string_view text, int64_t maxsplit, bool from_right);
std::vector<std::string_view> split_at(std::string_view text, std::string_view separator, int64_t maxsplit, bool from_right);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);

// str.replace; count < 0: all. Throws nothing; result_bytes() tells how long the result will be.
size_t replaced_bytes(std::string_view text, std::string_view old_text, std::string_view new_text, int64_t count);
std::string replace(std::string_view text, std::string_view old_text, std::string_view new_text, int64_t count);

size_t find_bytes(std::string_view text, std::string_view needle, size_t from = 0);  // linear time; npos when absent
std::string escape_html(std::string_view text);                                     // markupsafe.escape

// Every code point class that str.is*() asks for, by Unicode category.
bool is_alphabetic(char32_t code_point);
bool is_decimal_digit(char32_t code_point);
bool is_alphanumeric(char32_t code_point);

}  // namespace graft::jinja
