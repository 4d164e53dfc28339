// Upper, lower and title case of text, as Python's str methods do it (Unicode chapter 3.13).
#include <utf8proc.h>

#include <algorithm>

#include "data/templates/jinja/case_table.h"
#include "data/templates/jinja/python_text.h"

namespace graft::jinja {
namespace {

struct Interval {
  char32_t first, last;
};
template <size_t N>
bool contains(const Interval (&intervals)[N], char32_t c) {
  return std::any_of(std::begin(intervals), std::end(intervals), [c](const Interval& i) { return c >= i.first && c <= i.last; });
}

// Unicode's Other_Lowercase and Other_Uppercase: cased, although their category is not Ll or Lu.
constexpr Interval kOtherLowercase[] = {
    {0xAA, 0xAA},     {0xBA, 0xBA},     {0x2B0, 0x2B8},   {0x2C0, 0x2C1},   {0x2E0, 0x2E4},   {0x345, 0x345},
    {0x37A, 0x37A},   {0x1D2C, 0x1D6A}, {0x1D78, 0x1D78}, {0x1D9B, 0x1DBF}, {0x2071, 0x2071}, {0x207F, 0x207F},
    {0x2090, 0x209C}, {0x2170, 0x217F}, {0x24D0, 0x24E9}, {0x2C7C, 0x2C7D}, {0xA69C, 0xA69D}, {0xA770, 0xA770},
    {0xA7F8, 0xA7F9}, {0xAB5C, 0xAB5F}};
constexpr Interval kOtherUppercase[] = {
    {0x2160, 0x216F}, {0x24B6, 0x24CF}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}};
// Punctuation that does not end a word for the rule of the final sigma.
constexpr Interval kMidWord[] = {{0x27, 0x27},     {0x2E, 0x2E},     {0x3A, 0x3A},     {0xB7, 0xB7},     {0x387, 0x387},
                                 {0x55F, 0x55F},   {0x5F4, 0x5F4},   {0x2018, 0x2019}, {0x2024, 0x2024}, {0x2027, 0x2027},
                                 {0xFE13, 0xFE13}, {0xFE52, 0xFE52}, {0xFE55, 0xFE55}, {0xFF07, 0xFF07}, {0xFF0E, 0xFF0E},
                                 {0xFF1A, 0xFF1A}};

utf8proc_category_t category_of(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }
bool is_lowercase(char32_t c) { return category_of(c) == UTF8PROC_CATEGORY_LL || contains(kOtherLowercase, c); }
bool is_uppercase(char32_t c) { return category_of(c) == UTF8PROC_CATEGORY_LU || contains(kOtherUppercase, c); }
bool is_cased(char32_t c) { return is_lowercase(c) || is_uppercase(c) || category_of(c) == UTF8PROC_CATEGORY_LT; }

bool is_case_ignorable(char32_t c) {
  switch (category_of(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK: return true;
    default: return contains(kMidWord, c);
  }
}

const SpecialCase* find_special(char32_t c) {
  if (c < 0xDF) return nullptr;
  const auto& table = special_cases();
  const auto found = std::lower_bound(table.begin(), table.end(), c,
                                      [](const SpecialCase& entry, char32_t wanted) { return entry.code_point < wanted; });
  return found != table.end() && found->code_point == c ? &*found : nullptr;
}

void append_upper(std::string& result, char32_t c) {
  if (const SpecialCase* special = find_special(c)) {
    result += special->upper;
  } else {
    append_code_point(result, static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))));
  }
}

void append_title(std::string& result, char32_t c) {
  if (const SpecialCase* special = find_special(c)) {
    result += special->title;
  } else {
    append_code_point(result, static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c))));
  }
}

// A capital sigma at the end of a word becomes the final form.
bool is_final_sigma(std::string_view text, size_t begin, size_t end) {
  bool cased_before = false;
  for (size_t position = begin; position > 0;) {
    size_t previous = position - 1;
    while (previous > 0 && (static_cast<unsigned char>(text[previous]) & 0xC0) == 0x80) --previous;
    size_t next = previous;
    const char32_t c = decode_code_point(text, next);
    position = previous;
    if (is_case_ignorable(c)) continue;
    cased_before = is_cased(c);
    break;
  }
  if (!cased_before) return false;
  for (size_t position = end; position < text.size();) {
    const char32_t c = decode_code_point(text, position);
    if (!is_case_ignorable(c)) return !is_cased(c);
  }
  return true;
}

void append_lower(std::string& result, std::string_view text, char32_t c, size_t begin, size_t end) {
  if (c == 0x3A3) {
    append_code_point(result, is_final_sigma(text, begin, end) ? 0x3C2 : 0x3C3);
  } else if (c == 0x130) {  // the only letter with a longer lower case
    result += "i\u0307";
  } else {
    append_code_point(result, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
  }
}

}  // namespace

std::string lower(std::string_view text) {
  std::string result;
  for (size_t position = 0; position < text.size();) {
    const size_t begin = position;
    const char32_t c = decode_code_point(text, position);
    append_lower(result, text, c, begin, position);
  }
  return result;
}

std::string upper(std::string_view text) {
  std::string result;
  for (size_t position = 0; position < text.size();) append_upper(result, decode_code_point(text, position));
  return result;
}

std::string title(std::string_view text) {
  std::string result;
  bool inside_word = false;
  for (size_t position = 0; position < text.size();) {
    const size_t begin = position;
    const char32_t c = decode_code_point(text, position);
    if (inside_word) {
      append_lower(result, text, c, begin, position);
    } else {
      append_title(result, c);
    }
    inside_word = is_cased(c);
  }
  return result;
}

std::string capitalize(std::string_view text) {
  std::string result;
  for (size_t position = 0; position < text.size();) {
    const size_t begin = position;
    const char32_t c = decode_code_point(text, position);
    if (begin == 0) {
      append_title(result, c);
    } else {
      append_lower(result, text, c, begin, position);
    }
  }
  return result;
}

std::string swapcase(std::string_view text) {
  std::string result;
  for (size_t position = 0; position < text.size();) {
    const size_t begin = position;
    const char32_t c = decode_code_point(text, position);
    if (is_uppercase(c)) {
      append_lower(result, text, c, begin, position);
    } else if (is_lowercase(c)) {
      append_upper(result, c);
    } else {
      append_code_point(result, c);
    }
  }
  return result;
}

bool is_lower(std::string_view text) {
  bool any = false;
  for (size_t position = 0; position < text.size();) {
    const char32_t c = decode_code_point(text, position);
    if (is_uppercase(c) || category_of(c) == UTF8PROC_CATEGORY_LT) return false;
    any = any || is_lowercase(c);
  }
  return any;
}

bool is_upper(std::string_view text) {
  bool any = false;
  for (size_t position = 0; position < text.size();) {
    const char32_t c = decode_code_point(text, position);
    if (is_lowercase(c) || category_of(c) == UTF8PROC_CATEGORY_LT) return false;
    any = any || is_uppercase(c);
  }
  return any;
}

}  // namespace graft::jinja
