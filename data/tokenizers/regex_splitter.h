// Split patterns that have no hand-written scanner, through PCRE2.
//
// tokenizer.json's patterns are Oniguruma's (its default syntax). The two engines agree on a large part of the syntax, not on
// all: [a&&b], \h, \v, \w, \b, {,n}, {n}+ or a case-insensitive "ss" mean different things, and their Unicode versions differ.
// So a pattern is translated: what means the same is passed on, classes get the code points that PCRE2's Unicode does not
// know, and anything else is an error that names the construct. Never an approximation.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

struct MatchSpan {
  size_t begin = 0;
  size_t end = 0;
};

// The PCRE2 pattern that means what `pattern` means to Oniguruma. UserError when there is none. (regex_translation.cpp)
std::string translate_oniguruma(std::string_view pattern);

class RegexSplitter {
 public:
  explicit RegexSplitter(std::string_view oniguruma_pattern);
  ~RegexSplitter();
  RegexSplitter(RegexSplitter&&) noexcept;
  RegexSplitter& operator=(RegexSplitter&&) = delete;

  // All matches from left to right; empty ones only where the previous match does not end. Time is bounded: a pattern that
  // backtracks without measure is a UserError, not a hang. Stray bytes match as a control character would.
  std::vector<MatchSpan> matches(std::string_view text) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace graft
