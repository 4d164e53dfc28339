#include "data/tokenizers/normal_forms.h"

#include <utf8proc.h>

#include <cstdlib>
#include <memory>

#include "data/tokenizers/unicode_classes.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

bool composes(NormalForm form) { return form == NormalForm::kNfc || form == NormalForm::kNfkc; }
bool compatible(NormalForm form) { return form == NormalForm::kNfkc || form == NormalForm::kNfkd; }
bool is_jamo(uint32_t code) { return code >= 0x1100 && code <= 0x11FF; }

// utf8proc knows a combining class or a decomposition that the library, with Unicode 10, does not: the library sees a
// character that stands alone. (U+11930 and U+11938 are the vowel signs of the only pair that later versions compose.)
bool newer_than_library(const ClassedChar& c, NormalForm form) {
  if (c.code < 0x300) return false;
  const utf8proc_property_t* property = utf8proc_get_property(static_cast<utf8proc_int32_t>(c.code));
  if (compatible(form) && property->decomp_seqindex != UINT16_MAX && !c.is(kNfkdChanging)) return true;
  return (property->combining_class != 0 && !c.is(kCombining | kDecomposing)) || c.code == 0x11930 || c.code == 0x11938;
}

// May NFC change a text with this character in it? (A text without any such character is in NFC.)
bool needs_nfc(const ClassedChar& c) { return c.code >= 0x300 && (c.is(kMark | kNfcChanging) || is_jamo(c.code)); }

std::string apply(std::string_view text, NormalForm form) {
  if (text.empty()) return "";
  int options = UTF8PROC_STABLE | (composes(form) ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE);
  if (compatible(form)) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* made = nullptr;
  const utf8proc_ssize_t length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                                               &made, static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> own(made, std::free);
  if (length < 0) fail("tokenizers", "expected text that can be normalised, got '{}' — shorten it", utf8proc_errmsg(length));
  return std::string(reinterpret_cast<const char*>(made), static_cast<size_t>(length));
}

}  // namespace

std::string to_normal_form(std::string_view text, NormalForm form) {
  bool work = false;
  for (size_t i = 0; i < text.size() && !work;) {
    const ClassedChar next = classed_char(text, i);
    work = form == NormalForm::kNfc ? needs_nfc(next) : next.code >= 0x80;
    i += next.length;
  }
  if (!work) return std::string(text);
  // Characters that are newer, and stray bytes, stand between parts that are normalised on their own.
  std::string out;
  size_t part = 0;
  for (size_t i = 0; i < text.size();) {
    const ClassedChar next = classed_char(text, i);
    if (next.code == kInvalidUtf8 || newer_than_library(next, form)) {
      out += apply(text.substr(part, i - part), form);
      out += text.substr(i, next.length);
      part = i + next.length;
    }
    i += next.length;
  }
  return out += apply(text.substr(part), form);
}

}  // namespace graft
