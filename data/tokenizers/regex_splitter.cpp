#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/tokenizers/regex_splitter.h"

#include <pcre2.h>

#include "data/tokenizers/utf8.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

constexpr size_t kMostPatternBytes = 8192;

std::string pcre2_message(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

// PCRE2 wants UTF-8; a stray byte becomes DEL, which has its length and, as it, no class. Empty when nothing is stray.
std::string without_stray_bytes(std::string_view text) {
  std::string clean;
  for (size_t i = 0; i < text.size();) {
    const Utf8Char next = decode_utf8(text, i);
    if (next.code == kInvalidUtf8) {
      if (clean.empty()) clean = text;
      clean[i] = '\x7F';
    }
    i += next.length;
  }
  return clean;
}

}  // namespace

struct RegexSplitter::Impl {
  std::string pattern;
  pcre2_code* code = nullptr;
  ~Impl() { pcre2_code_free(code); }
};

RegexSplitter::RegexSplitter(std::string_view oniguruma_pattern) : impl_(std::make_unique<Impl>()) {
  impl_->pattern = oniguruma_pattern;
  if (oniguruma_pattern.size() > kMostPatternBytes) {
    fail("tokenizers", "expected a split pattern of at most {} bytes, got {} — is this a tokenizer.json?", kMostPatternBytes,
         oniguruma_pattern.size());
  }
  const std::string translated = translate_oniguruma(oniguruma_pattern);
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  pcre2_set_parens_nest_limit(context, 50);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);  // Oniguruma's only line break
  int error = 0;
  PCRE2_SIZE offset = 0;
  // MULTILINE: Oniguruma's ^ and $ always stand at lines.
  impl_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_AUTO_CAPTURE, &error,
                              &offset, context);
  pcre2_compile_context_free(context);
  if (impl_->code == nullptr) {
    fail("tokenizers", "expected a regular expression, got '{}' ({}) — the split pattern is broken or uses what graft lacks",
         oniguruma_pattern, pcre2_message(error));
  }
}

RegexSplitter::~RegexSplitter() = default;
RegexSplitter::RegexSplitter(RegexSplitter&&) noexcept = default;

std::vector<MatchSpan> RegexSplitter::matches(std::string_view text) const {
  const std::string clean = without_stray_bytes(text);
  const std::string_view subject = clean.empty() ? text : std::string_view(clean);
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  // One match steps over each character a few times; a pattern that needs more backtracks exponentially.
  pcre2_set_match_limit(context, static_cast<uint32_t>(std::min<size_t>(10'000 + 16 * text.size(), 50'000'000)));
  pcre2_set_depth_limit(context, 100'000'000);  // the heap limit is what bounds it
  pcre2_set_heap_limit(context, 128 * 1024);    // KiB
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> own_data(data, pcre2_match_data_free);
  const std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> own_context(context, pcre2_match_context_free);

  std::vector<MatchSpan> found;
  size_t from = 0;
  while (from <= subject.size()) {
    const int status = pcre2_match(impl_->code, reinterpret_cast<PCRE2_SPTR>(subject.data()), subject.size(), from,
                                   PCRE2_NO_UTF_CHECK, data, context);
    if (status == PCRE2_ERROR_NOMATCH) break;
    if (status < 0) {
      fail("tokenizers", "expected the split pattern to run in bounded time and memory, got '{}' at byte {} of {} ({}) — shorten this text, or report the pattern",
           impl_->pattern, from, text.size(), pcre2_message(status));
    }
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data);
    const MatchSpan match{ends[0], ends[1]};
    if (match.begin == match.end && !found.empty() && found.back().end == match.end) {
      // An empty match right after the last one does not count, or there would be no progress.
      if (from >= subject.size()) break;
      from += decode_utf8(subject, from).length;
      continue;
    }
    found.push_back(match);
    from = match.end;
  }
  return found;
}

}  // namespace graft
