#include "data/rows/normalised_text.h"

#include <algorithm>
#include <cstdlib>

#include <utf8proc.h>

namespace graft {
namespace {

enum class CharacterKind { kSeparator, kWord, kSingle };

bool is_cjk(utf8proc_int32_t c) {
  return (c >= 0x2E80 && c <= 0x9FFF) || (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x20000 && c <= 0x3FFFF);
}

CharacterKind kind_of(utf8proc_int32_t c) {
  if (c == '_') return CharacterKind::kWord;
  if (c == '*' || c == '/' || c == '%' || c == '#' || c == '@' || c == '&') return CharacterKind::kSingle;
  const auto category = utf8proc_category(c);
  if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NO)
    return is_cjk(c) ? CharacterKind::kSingle : CharacterKind::kWord;
  if (category >= UTF8PROC_CATEGORY_SM && category <= UTF8PROC_CATEGORY_SO) return CharacterKind::kSingle;
  return CharacterKind::kSeparator;
}

// FNV-1a over the words, then splitmix64's finaliser: the plain FNV of similar texts is too regular.
uint64_t hash_text(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char byte : text) hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3;
  hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9;
  hash = (hash ^ (hash >> 27)) * 0x94d049bb133111eb;
  return hash ^ (hash >> 31);
}

}  // namespace

std::string normalised_text(std::string_view text) {
  utf8proc_uint8_t* mapped = nullptr;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT | UTF8PROC_CASEFOLD);
  const auto length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                   static_cast<utf8proc_ssize_t>(text.size()), &mapped, options);
  if (length < 0) return std::string(text);  // no valid UTF-8: read_rows let none through
  const std::string folded(reinterpret_cast<const char*>(mapped), static_cast<size_t>(length));
  std::free(mapped);
  std::string words;
  bool in_word = false;
  for (size_t at = 0; at < folded.size();) {
    utf8proc_int32_t code_point = 0;
    const auto size = static_cast<size_t>(utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(folded.data()) + at,
                                                           static_cast<utf8proc_ssize_t>(folded.size() - at), &code_point));
    const CharacterKind kind = kind_of(code_point);
    if (kind != CharacterKind::kSeparator) {
      if (!words.empty() && !(in_word && kind == CharacterKind::kWord)) words += ' ';
      words.append(folded, at, size);
    }
    in_word = kind == CharacterKind::kWord;
    at += size;
  }
  return words.empty() ? folded : words;
}

std::vector<uint64_t> word_shingles(std::string_view normalised) {
  constexpr size_t kWords = 5;
  std::vector<size_t> begins = {0};
  for (size_t at = 0; at < normalised.size(); ++at) {
    if (normalised[at] == ' ') begins.push_back(at + 1);
  }
  if (begins.size() < kWords) return {hash_text(normalised)};
  begins.push_back(normalised.size() + 1);
  std::vector<uint64_t> shingles;
  for (size_t first = 0; first + kWords < begins.size(); ++first) {
    shingles.push_back(hash_text(normalised.substr(begins[first], begins[first + kWords] - 1 - begins[first])));
  }
  std::sort(shingles.begin(), shingles.end());
  shingles.erase(std::unique(shingles.begin(), shingles.end()), shingles.end());
  return shingles;
}

double jaccard(const std::vector<uint64_t>& a, const std::vector<uint64_t>& b) {
  size_t common = 0;
  for (auto left = a.begin(), right = b.begin(); left != a.end() && right != b.end();) {
    if (*left == *right) ++common;
    const bool step_left = *left <= *right, step_right = *right <= *left;
    if (step_left) ++left;
    if (step_right) ++right;
  }
  return static_cast<double>(common) / static_cast<double>(a.size() + b.size() - common);
}

}  // namespace graft
