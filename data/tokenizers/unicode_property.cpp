#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/tokenizers/unicode_property.h"

#include <pcre2.h>

#include <map>
#include <mutex>
#include <vector>

#include "data/tokenizers/unicode_classes.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

constexpr uint32_t kEnd = 0x110000;
constexpr uint32_t kCased = kUppercase | kTitlecase | kLowercase | kModifier;

struct Property {
  std::string_view name;
  uint32_t any_of;
  uint32_t none_of;
};
constexpr Property kProperties[] = {{"L", kLetter, 0},     {"N", kNumber, 0},      {"M", kMark, 0},        {"P", kPunctuation, 0},
                                    {"S", kSymbol, 0},     {"Lu", kUppercase, 0},  {"Lt", kTitlecase, 0},  {"Ll", kLowercase, 0},
                                    {"Lm", kModifier, 0},  {"Lo", kLetter, kCased}, {"Nd", kDecimal, 0},   {"Han", kHan, 0}};

bool is_surrogate(uint32_t code) { return code >= 0xD800 && code <= 0xDFFF; }

std::string ranges(const std::vector<bool>& members) {
  std::string text;
  for (uint32_t code = 0; code < kEnd;) {
    if (!members[code]) {
      ++code;
      continue;
    }
    const uint32_t first = code;
    while (code < kEnd && members[code]) ++code;
    text += fmt::format("\\x{{{:X}}}", first);
    if (code - 1 > first) text += fmt::format("-\\x{{{:X}}}", code - 1);
  }
  return text;
}

std::vector<bool> members_in_pcre2(std::string_view property) {
  static const std::string all = [] {
    std::string text;
    for (uint32_t code = 0; code < kEnd; ++code) {
      if (!is_surrogate(code)) append_utf8(text, code);
    }
    return text;
  }();
  std::vector<bool> members(kEnd);
  const std::string pattern = fmt::format("\\p{{{}}}+", property);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  for (size_t from = 0; pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(all.data()), all.size(), from, PCRE2_NO_UTF_CHECK, data, nullptr) > 0;) {
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data);
    for (size_t i = ends[0]; i < ends[1];) {
      const Utf8Char found = decode_utf8(all, i);
      members[found.code] = true;
      i += found.length;
    }
    from = ends[1];
  }
  pcre2_match_data_free(data);
  pcre2_code_free(code);
  return members;
}

std::string make_property(const Property& property) {
  const std::vector<bool> theirs = members_in_pcre2(property.name);
  std::vector<bool> ours(kEnd), missing(kEnd);
  bool too_many = false;
  for (uint32_t code = 0; code < kEnd; ++code) {
    const uint32_t classes = unicode_classes(code);
    ours[code] = !is_surrogate(code) && (classes & property.any_of) != 0 && (classes & property.none_of) == 0;
    missing[code] = ours[code] && !theirs[code];
    too_many = too_many || (theirs[code] && !ours[code]);
  }
  return too_many ? ranges(ours) : fmt::format("\\p{{{}}}", property.name) + ranges(missing);
}

}  // namespace

std::string property_for_class(std::string_view name) {
  static std::mutex mutex;
  static std::map<std::string_view, std::string> made;
  const std::lock_guard lock(mutex);
  for (const Property& property : kProperties) {
    if (property.name != name) continue;
    const auto found = made.find(property.name);
    return found != made.end() ? found->second : made.emplace(property.name, make_property(property)).first->second;
  }
  fail("tokenizers", "expected one of the Unicode properties L N M P S Lu Lt Ll Lm Lo Nd Han in a split pattern, got '{}' — report the pattern", name);
}

std::string white_space_for_class(bool negated) {
  const auto made = [](bool others) {
    std::vector<bool> members(kEnd);
    for (uint32_t code = 0; code < kEnd; ++code) {
      members[code] = !is_surrogate(code) && ((unicode_classes(code) & kSpace) != 0) != others;
    }
    return ranges(members);
  };
  static const std::string spaces = made(false), others = made(true);   // a pattern may name them a hundred times
  return negated ? others : spaces;
}

}  // namespace graft
