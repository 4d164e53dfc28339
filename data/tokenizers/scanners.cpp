// Each alternative of a pattern is one small function: it returns the end of its match at `position`, or `position` when it
// does not match. A scanner tries them in the pattern's order, as a backtracking regex engine does.
#include "data/tokenizers/scanners.h"

#include "data/tokenizers/unicode_classes.h"

namespace graft {
namespace {

bool is_newline(uint32_t code) { return code == '\r' || code == '\n'; }

// X+ for a predicate over ClassedChar.
template <typename Predicate>
size_t run(std::string_view text, size_t position, Predicate holds) {
  while (position < text.size()) {
    const ClassedChar next = classed_char(text, position);
    if (!holds(next)) break;
    position += next.length;
  }
  return position;
}
// " ?X+"
template <typename Predicate>
size_t spaced_run(std::string_view text, size_t position, Predicate holds) {
  const size_t start = text[position] == ' ' ? position + 1 : position;
  const size_t end = run(text, start, holds);
  return end > start ? end : position;
}
// \p{N}{1,most}
size_t numbers(std::string_view text, size_t position, int most) {
  for (int count = 0; count < most && position < text.size(); ++count) {
    const ClassedChar next = classed_char(text, position);
    if (!next.is(kNumber)) break;
    position += next.length;
  }
  return position;
}

enum class Fold { kNone, kAscii, kUnicode };
// 's|'t|'re|'ve|'m|'ll|'d. With (?i: the long s U+017F also folds to s; no other character folds to these letters.
template <Fold fold>
size_t contraction(std::string_view text, size_t position) {
  if (text[position] != '\'' || position + 1 >= text.size()) return position;
  const auto letter = [&](size_t i) {
    const char c = i < text.size() ? text[i] : '\0';
    return fold != Fold::kNone && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  };
  const char first = letter(position + 1);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return position + 2;
  const char second = letter(position + 2);
  if (((first == 'r' || first == 'v') && second == 'e') || (first == 'l' && second == 'l')) return position + 3;
  if (fold == Fold::kUnicode && text.substr(position + 1, 2) == "\u017F") return position + 3;
  return position;
}

// \s+(?!\S)|\s+ : a run of white space leaves its last character to a word that follows.
size_t white_space(std::string_view text, size_t position) {
  const size_t end = run(text, position, [](const ClassedChar& c) { return c.is(kSpace); });
  if (end == position || end == text.size()) return end;
  const size_t last = previous_utf8(text, end);
  return last > position ? last : end;
}
// \s*[\r\n]+|\s+(?!\S)|\s+ : up to the last line break of the run, if it has one.
size_t white_space_lines(std::string_view text, size_t position) {
  size_t after_break = position;
  size_t end = position;
  while (end < text.size()) {
    const ClassedChar next = classed_char(text, end);
    if (!next.is(kSpace)) break;
    end += next.length;
    if (is_newline(next.code)) after_break = end;
  }
  return after_break > position ? after_break : white_space(text, position);
}

size_t scan_gpt2(std::string_view text, size_t position) {
  size_t end = contraction<Fold::kNone>(text, position);
  if (end > position) return end;
  end = spaced_run(text, position, [](const ClassedChar& c) { return c.is(kLetter); });
  if (end > position) return end;
  end = spaced_run(text, position, [](const ClassedChar& c) { return c.is(kNumber); });
  if (end > position) return end;
  end = spaced_run(text, position, [](const ClassedChar& c) { return !c.is(kSpace | kLetter | kNumber); });
  if (end > position) return end;
  return white_space(text, position);
}

// ` ?[^\s<others>]+[\r\n]*`, where `also` is '/' for gpt-4o and tekken.
size_t symbols_and_breaks(std::string_view text, size_t position, uint32_t words, char also = '\n') {
  const size_t end = spaced_run(text, position, [&](const ClassedChar& c) { return !c.is(kSpace | words); });
  if (end == position) return position;
  return run(text, end, [&](const ClassedChar& c) { return is_newline(c.code) || c.code == static_cast<uint32_t>(also); });
}

// [^\r\n\p{L}\p{N}]?<word>+
size_t prefixed_word(std::string_view text, size_t position, uint32_t word) {
  const auto in_word = [&](const ClassedChar& c) { return c.is(word); };
  const ClassedChar first = classed_char(text, position);
  if (!first.is(kLetter | kNumber) && !is_newline(first.code)) {
    const size_t start = position + first.length;
    const size_t end = run(text, start, in_word);
    if (end > start) return end;
  }
  return run(text, position, in_word);
}

// Qwen 2 (one digit), Llama 3 (up to three digits), Qwen 3.5 (marks belong to words).
template <uint32_t word, int digits, Fold fold>
size_t scan_qwen_llama(std::string_view text, size_t position) {
  size_t end = contraction<fold>(text, position);
  if (end > position) return end;
  end = prefixed_word(text, position, word);
  if (end > position) return end;
  end = numbers(text, position, digits);
  if (end > position) return end;
  end = symbols_and_breaks(text, position, word | kNumber);
  if (end > position) return end;
  return white_space_lines(text, position);
}

struct UnicodeCase {  // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}] and [\p{Ll}\p{Lm}\p{Lo}\p{M}]
  static bool upper(const ClassedChar& c) { return c.is(kMark) || (c.is(kLetter) && !c.is(kLowercase)); }
  static bool lower(const ClassedChar& c) { return c.is(kMark) || (c.is(kLetter) && !c.is(kUppercase | kTitlecase)); }
};
struct KimiCase {  // the same && [^\p{Han}]
  static bool upper(const ClassedChar& c) { return UnicodeCase::upper(c) && !c.is(kHan); }
  static bool lower(const ClassedChar& c) { return UnicodeCase::lower(c) && !c.is(kHan); }
};
struct AsciiCase {  // llama.cpp: (?=\p{L})[^a-z] and (?=\p{L})[^A-Z]
  static bool upper(const ClassedChar& c) { return c.is(kLetter) && !(c.code >= 'a' && c.code <= 'z'); }
  static bool lower(const ClassedChar& c) { return c.is(kLetter) && !(c.code >= 'A' && c.code <= 'Z'); }
};

// upper*lower+ : the upper run gives back characters until one of them can be the first of the lower run.
template <typename Case>
size_t ends_in_lower(std::string_view text, size_t position) {
  const size_t upper_end = run(text, position, Case::upper);
  const size_t end = run(text, upper_end, Case::lower);
  if (end > upper_end) return end;
  for (size_t back = upper_end; back > position;) {
    const size_t start = previous_utf8(text, back);
    if (Case::lower(classed_char(text, start))) return back;
    back = start;
  }
  return position;
}
// upper+lower*
template <typename Case>
size_t starts_in_upper(std::string_view text, size_t position) {
  const size_t upper_end = run(text, position, Case::upper);
  return upper_end > position ? run(text, upper_end, Case::lower) : position;
}
// [^\r\n\p{L}\p{N}]?upper*lower+ | [^\r\n\p{L}\p{N}]?upper+lower*
template <typename Case>
size_t cased_word(std::string_view text, size_t position) {
  const ClassedChar first = classed_char(text, position);
  const bool prefix = !first.is(kLetter | kNumber) && !is_newline(first.code);
  const size_t start = position + first.length;
  for (const auto form : {ends_in_lower<Case>, starts_in_upper<Case>}) {
    if (prefix && start < text.size()) {
      const size_t end = form(text, start);
      if (end > start) return end;
    }
    const size_t end = form(text, position);
    if (end > position) return end;
  }
  return position;
}

// gpt-4o (contractions end a word, three digits) and Mistral's tekken (neither).
template <typename Case, bool contractions, Fold fold, int digits>
size_t scan_cased(std::string_view text, size_t position) {
  size_t end = cased_word<Case>(text, position);
  if (end > position) return contractions && end < text.size() ? contraction<fold>(text, end) : end;
  end = numbers(text, position, digits);
  if (end > position) return end;
  end = symbols_and_breaks(text, position, kLetter | kNumber, '/');
  if (end > position) return end;
  return white_space_lines(text, position);
}

size_t scan_kimi(std::string_view text, size_t position) {
  size_t end = run(text, position, [](const ClassedChar& c) { return c.is(kHan); });
  if (end > position) return end;
  end = cased_word<KimiCase>(text, position);
  if (end > position) return end < text.size() ? contraction<Fold::kUnicode>(text, end) : end;
  end = numbers(text, position, 3);
  if (end > position) return end;
  end = symbols_and_breaks(text, position, kLetter | kNumber);
  if (end > position) return end;
  return white_space_lines(text, position);
}

// A pattern that leaves gaps: a gap is a piece that reaches to the next match.
template <size_t (*match)(std::string_view, size_t)>
size_t with_gaps(std::string_view text, size_t position) {
  const size_t end = match(text, position);
  if (end > position) return end;
  do {
    position += decode_utf8(text, position).length;
  } while (position < text.size() && match(text, position) == position);
  return position;
}

template <int most>
size_t match_numbers(std::string_view text, size_t position) { return numbers(text, position, most); }

size_t match_cjk(std::string_view text, size_t position) {
  return run(text, position, [](const ClassedChar& c) {
    return (c.code >= 0x4E00 && c.code <= 0x9FA5) || (c.code >= 0x3040 && c.code <= 0x30FF);
  });
}

size_t match_bloom(std::string_view text, size_t position) {
  return spaced_run(text, position, [](const ClassedChar& c) {
    constexpr std::u32string_view kSigns = U"(|.,!?\u2026\u3002\uFF0C\u3001\u0964\u06D4\u060C)";
    return !c.is(kSpace) && kSigns.find(static_cast<char32_t>(c.code)) == std::u32string_view::npos;
  });
}

size_t match_deepseek3(std::string_view text, size_t position) {
  const ClassedChar first = classed_char(text, position);
  const size_t start = position + first.length;
  if (first.code < 0x80 && first.is(kPunctuation | kSymbol)) {  // an ASCII sign before ASCII letters
    const size_t end = run(text, start, [](const ClassedChar& c) { return c.code < 0x80 && c.is(kLetter); });
    if (end > start) return end;
  }
  const auto in_word = [](const ClassedChar& c) { return c.is(kLetter | kMark); };
  if (!first.is(kLetter | kPunctuation | kSymbol) && !is_newline(first.code)) {
    const size_t end = run(text, start, in_word);
    if (end > start) return end;
  }
  size_t end = run(text, position, in_word);
  if (end > position) return end;
  end = spaced_run(text, position, [](const ClassedChar& c) { return c.is(kPunctuation | kSymbol); });
  if (end > position) return run(text, end, [](const ClassedChar& c) { return is_newline(c.code); });
  return white_space_lines(text, position);
}

constexpr KnownPattern kPatterns[] = {
    {"gpt2", kGpt2Pattern, scan_gpt2, true},
    {"qwen2", kQwen2Pattern, scan_qwen_llama<kLetter, 1, Fold::kUnicode>, true},
    {"llama3", kLlama3Pattern, scan_qwen_llama<kLetter, 3, Fold::kUnicode>, true},
    {"qwen35", kQwen35Pattern, scan_qwen_llama<kLetter | kMark, 1, Fold::kUnicode>, true},
    {"gpt-4o", kGpt4oPattern, scan_cased<UnicodeCase, true, Fold::kUnicode, 3>, true},
    {"tekken", kTekkenPattern, scan_cased<UnicodeCase, false, Fold::kUnicode, 1>, true},
    {"number", kNumberPattern, with_gaps<match_numbers<1>>, false},
    {"numbers of three", kNumbers3Pattern, with_gaps<match_numbers<3>>, false},
    {"cjk", kCjkPattern, with_gaps<match_cjk>, false},
    {"deepseek3", kDeepseek3Pattern, with_gaps<match_deepseek3>, false},
    {"kimi-k2", kKimiPattern, scan_kimi, true},
    {"bloom", kBloomPattern, with_gaps<match_bloom>, false},
    {"qwen2 in GGUF", kQwen2GgufPattern, scan_qwen_llama<kLetter, 1, Fold::kAscii>, true},
    {"llama3 in GGUF", kLlama3GgufPattern, scan_qwen_llama<kLetter, 3, Fold::kAscii>, true},
    {"qwen35 in GGUF", kQwen35GgufPattern, scan_qwen_llama<kLetter | kMark, 1, Fold::kAscii>, true},
    {"gpt-4o in GGUF", kGpt4oGgufPattern, scan_cased<AsciiCase, true, Fold::kAscii, 3>, true},
    {"tekken in GGUF", kTekkenGgufPattern, scan_cased<AsciiCase, false, Fold::kAscii, 1>, true},
};

}  // namespace

std::span<const KnownPattern> known_patterns() { return kPatterns; }

const KnownPattern* find_known_pattern(std::string_view pattern) {
  for (const KnownPattern& known : kPatterns) {
    if (known.pattern == pattern) return &known;
  }
  return nullptr;
}

}  // namespace graft
