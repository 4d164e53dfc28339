#include "data/templates/jinja/python_text.h"

#include <string.h>
#include <utf8proc.h>

#include <algorithm>

namespace graft::jinja {

char32_t decode_code_point(std::string_view text, size_t& position) {
  const unsigned char first = static_cast<unsigned char>(text[position]);
  const int extra = first < 0x80 ? 0 : first >= 0xF0 && first < 0xF8 ? 3 : first >= 0xE0 ? 2 : first >= 0xC2 ? 1 : 0;
  if (extra == 0 || first >= 0xF8 || position + extra >= text.size()) {
    ++position;
    return first;
  }
  char32_t code_point = first & (0x3F >> extra);
  for (int i = 1; i <= extra; ++i) {
    const unsigned char next = static_cast<unsigned char>(text[position + i]);
    if ((next & 0xC0) != 0x80) {
      ++position;
      return first;
    }
    code_point = code_point << 6 | (next & 0x3F);
  }
  position += extra + 1;
  return code_point;
}

void append_code_point(std::string& text, char32_t code_point) {
  if (code_point < 0x80) {
    text += static_cast<char>(code_point);
  } else if (code_point < 0x800) {
    text += static_cast<char>(0xC0 | code_point >> 6);
    text += static_cast<char>(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    text += static_cast<char>(0xE0 | code_point >> 12);
    text += static_cast<char>(0x80 | (code_point >> 6 & 0x3F));
    text += static_cast<char>(0x80 | (code_point & 0x3F));
  } else {
    text += static_cast<char>(0xF0 | code_point >> 18);
    text += static_cast<char>(0x80 | (code_point >> 12 & 0x3F));
    text += static_cast<char>(0x80 | (code_point >> 6 & 0x3F));
    text += static_cast<char>(0x80 | (code_point & 0x3F));
  }
}

int64_t count_code_points(std::string_view text) {
  int64_t count = 0;
  for (size_t position = 0; position < text.size(); ++count) {
    if (static_cast<unsigned char>(text[position]) < 0x80) {
      ++position;
    } else {
      decode_code_point(text, position);
    }
  }
  return count;
}

size_t byte_offset(std::string_view text, int64_t code_point_index) {
  size_t position = 0;
  for (int64_t i = 0; i < code_point_index && position < text.size(); ++i) decode_code_point(text, position);
  return position;
}

std::vector<size_t> code_point_offsets(std::string_view text) {
  std::vector<size_t> offsets;
  size_t position = 0;
  while (position < text.size()) {
    offsets.push_back(position);
    decode_code_point(text, position);
  }
  offsets.push_back(text.size());
  return offsets;
}

bool is_python_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_printable(char32_t c) {
  if (c == ' ') return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS: return false;
    default: return true;
  }
}

bool is_alphabetic(char32_t c) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool is_decimal_digit(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)) == UTF8PROC_CATEGORY_ND; }

bool is_alphanumeric(char32_t c) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return is_alphabetic(c) || category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_NO;
}

std::string_view strip(std::string_view text, const std::string_view* chars, bool left, bool right) {
  std::vector<char32_t> set;
  for (size_t position = 0; chars && position < chars->size();) set.push_back(decode_code_point(*chars, position));
  const auto strips = [&](char32_t c) {
    return chars ? std::find(set.begin(), set.end(), c) != set.end() : is_python_space(c);
  };
  size_t begin = 0;
  while (left && begin < text.size()) {
    size_t next = begin;
    if (!strips(decode_code_point(text, next))) break;
    begin = next;
  }
  size_t end = text.size();
  while (right && end > begin) {
    size_t previous = end - 1;
    while (previous > begin && end - previous < 4 && (static_cast<unsigned char>(text[previous]) & 0xC0) == 0x80) --previous;
    size_t after = previous;
    char32_t c = decode_code_point(text, after);
    if (after != end) {  // not UTF-8: one byte
      previous = end - 1;
      c = static_cast<unsigned char>(text[previous]);
    }
    if (!strips(c)) break;
    end = previous;
  }
  return text.substr(begin, end - begin);
}

size_t find_bytes(std::string_view text, std::string_view needle, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  const void* found = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  return found ? static_cast<size_t>(static_cast<const char*>(found) - text.data()) : std::string_view::npos;
}

namespace {

std::vector<std::string_view> split_white_space_from_right(std::string_view text, int64_t maxsplit) {
  std::vector<std::string_view> parts;
  const std::vector<size_t> offsets = code_point_offsets(text);
  const auto is_space = [&](size_t i) {
    size_t position = offsets[i];
    return is_python_space(decode_code_point(text, position));
  };
  size_t end = offsets.size() - 1;
  while (true) {
    while (end > 0 && is_space(end - 1)) --end;
    if (end == 0) break;
    if (maxsplit >= 0 && static_cast<int64_t>(parts.size()) == maxsplit) {
      parts.push_back(text.substr(0, offsets[end]));
      break;
    }
    size_t begin = end;
    while (begin > 0 && !is_space(begin - 1)) --begin;
    parts.push_back(text.substr(offsets[begin], offsets[end] - offsets[begin]));
    end = begin;
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

}  // namespace

std::vector<std::string_view> split_white_space(std::string_view text, int64_t maxsplit, bool from_right) {
  if (from_right) return split_white_space_from_right(text, maxsplit);
  std::vector<std::string_view> parts;
  size_t position = 0;
  while (true) {
    size_t begin = text.size(), next = position;
    while (next < text.size()) {
      const size_t here = next;
      if (!is_python_space(decode_code_point(text, next))) {
        begin = here;
        break;
      }
    }
    if (begin == text.size()) return parts;
    if (maxsplit >= 0 && static_cast<int64_t>(parts.size()) == maxsplit) {
      parts.push_back(strip(text.substr(begin), nullptr, false, true));
      return parts;
    }
    size_t end = begin;
    next = begin;
    while (next < text.size()) {
      end = next;
      if (is_python_space(decode_code_point(text, next))) break;
      end = next;
    }
    parts.push_back(text.substr(begin, end - begin));
    position = end;
  }
}

std::vector<std::string_view> split_at(std::string_view text, std::string_view separator, int64_t maxsplit, bool from_right) {
  std::vector<std::string_view> parts;
  if (from_right) {
    size_t end = text.size();
    while (maxsplit < 0 || static_cast<int64_t>(parts.size()) < maxsplit) {
      const size_t found = separator.size() > end ? std::string_view::npos : text.rfind(separator, end - separator.size());
      if (found == std::string_view::npos) break;
      parts.push_back(text.substr(found + separator.size(), end - found - separator.size()));
      end = found;
    }
    parts.push_back(text.substr(0, end));
    std::reverse(parts.begin(), parts.end());
    return parts;
  }
  size_t begin = 0;
  while (maxsplit < 0 || static_cast<int64_t>(parts.size()) < maxsplit) {
    const size_t found = find_bytes(text, separator, begin);
    if (found == std::string_view::npos) break;
    parts.push_back(text.substr(begin, found - begin));
    begin = found + separator.size();
  }
  parts.push_back(text.substr(begin));
  return parts;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t begin = 0, position = 0;
  while (position < text.size()) {
    const size_t here = position;
    const char32_t c = decode_code_point(text, position);
    const bool breaks = (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    if (!breaks) continue;
    if (c == '\r' && position < text.size() && text[position] == '\n') ++position;
    lines.push_back(text.substr(begin, (keep_ends ? position : here) - begin));
    begin = position;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

namespace {

int64_t count_matches(std::string_view text, std::string_view old_text, int64_t limit) {
  int64_t matches = 0;
  if (old_text.empty()) {
    matches = count_code_points(text) + 1;
    return limit < 0 ? matches : std::min(matches, limit);
  }
  for (size_t at = find_bytes(text, old_text); at != std::string_view::npos && (limit < 0 || matches < limit);
       at = find_bytes(text, old_text, at + old_text.size())) {
    ++matches;
  }
  return matches;
}

}  // namespace

size_t replaced_bytes(std::string_view text, std::string_view old_text, std::string_view new_text, int64_t count) {
  const size_t matches = static_cast<size_t>(count_matches(text, old_text, count));
  return text.size() + matches * new_text.size() - matches * old_text.size();
}

std::string replace(std::string_view text, std::string_view old_text, std::string_view new_text, int64_t count) {
  std::string result;
  if (old_text.empty()) {  // before each code point, and at the end
    size_t position = 0;
    for (int64_t done = 0; count < 0 || done < count; ++done) {
      result += new_text;
      if (position == text.size()) return result;
      const size_t here = position;
      decode_code_point(text, position);
      result += text.substr(here, position - here);
    }
    return result += text.substr(position);
  }
  size_t begin = 0;
  for (int64_t done = 0; count < 0 || done < count; ++done) {
    const size_t found = find_bytes(text, old_text, begin);
    if (found == std::string_view::npos) break;
    result += text.substr(begin, found - begin);
    result += new_text;
    begin = found + old_text.size();
  }
  return result += text.substr(begin);
}

std::string escape_html(std::string_view text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&': result += "&amp;"; break;
      case '<': result += "&lt;"; break;
      case '>': result += "&gt;"; break;
      case '\'': result += "&#39;"; break;
      case '"': result += "&#34;"; break;
      default: result += c;
    }
  }
  return result;
}

}  // namespace graft::jinja
