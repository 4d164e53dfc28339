// Scanners, PCRE2 and the translation of patterns.
#include "data/tokenizers/pre_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "data/tokenizers/first_bytes.h"
#include "data/tokenizers/regex_splitter.h"
#include "data/tokenizers/scanners.h"
#include "data/tokenizers/unicode_classes.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::vector<std::string> pieces(const std::vector<SplitRule>& rules, std::string_view text, bool use_scanners = true) {
  Pieces found;
  PreTokenizer(rules, use_scanners).split(text, found);
  return {found.pieces.begin(), found.pieces.end()};
}
std::vector<std::string> pieces(std::string_view pattern, std::string_view text, bool use_scanners = true) {
  return pieces({{.pattern = std::string(pattern)}}, text, use_scanners);
}

TEST(Scanners, Gpt2) {
  EXPECT_THAT(pieces(kGpt2Pattern, "I'll say 12  words!!\n\n x"), ElementsAre("I", "'ll", " say", " 12", " ", " words", "!!", "\n\n", " x"));
  EXPECT_THAT(pieces(kGpt2Pattern, "a   "), ElementsAre("a", "   "));
  EXPECT_THAT(pieces(kGpt2Pattern, "'S"), ElementsAre("'", "S"));
}

TEST(Scanners, Qwen2TakesOneDigitLlama3Three) {
  EXPECT_THAT(pieces(kQwen2Pattern, "12 345"), ElementsAre("1", "2", " ", "3", "4", "5"));
  EXPECT_THAT(pieces(kLlama3Pattern, "1234 5"), ElementsAre("123", "4", " ", "5"));
  EXPECT_THAT(pieces(kLlama3Pattern, "x\n\n  y\t!z'RE \r\n"), ElementsAre("x", "\n\n", " ", " y", "\t", "!z", "'RE", " \r\n"));
}

TEST(Scanners, LongSFoldsToSInTokenizerJsonOnly) {
  EXPECT_THAT(pieces(kQwen2Pattern, "a'\u017Fb"), ElementsAre("a", "'\u017F", "b"));
  EXPECT_THAT(pieces(kQwen2GgufPattern, "a'\u017Fb"), ElementsAre("a", "'\u017Fb"));
}

TEST(Scanners, Gpt4oCutsAtCase) {
  EXPECT_THAT(pieces(kGpt4oPattern, "camelCase HTTPServer's"), ElementsAre("camel", "Case", " HTTPServer's"));
  EXPECT_THAT(pieces(kGpt4oPattern, "\u00E9cole\u00C9cole"), ElementsAre("\u00E9cole", "\u00C9cole"));
  EXPECT_THAT(pieces(kGpt4oGgufPattern, "\u00E9cole\u00C9cole"), ElementsAre("\u00E9cole\u00C9cole"));
}

TEST(Scanners, StrayBytesAreSigns) {
  EXPECT_THAT(pieces(kGpt2Pattern, "a\xFF\xFE b\xC3"), ElementsAre("a", "\xFF\xFE", " b", "\xC3"));
  for (const KnownPattern& known : known_patterns()) {
    std::string joined;
    for (const std::string& piece : pieces(known.pattern, "x\x80\xED\xA0\x80 \xF4\x90\x80\x80y")) joined += piece;
    EXPECT_EQ(joined, "x\x80\xED\xA0\x80 \xF4\x90\x80\x80y") << known.name;
  }
}

// Characters of every class the patterns speak of, so that random texts meet every alternative.
std::string random_text(std::mt19937& random) {
  static const std::vector<std::string> kParts = {"a", "z", "A", "Z", "s", "S", "t", "'", "'s", "'LL", "re", "\u017F", "\u00E9", "\u00C9", "\u01C5", "\u02B0", "\u4E2D", "\u3042", "\uFF21",
                                                  "\u0301", "\u0903", "1", "2", "\u0663", "\u00BD", "\u2167", " ", " ", "  ", "\n", "\r\n", "\t", "\u00A0", "\u3000", "\u2028", "\u0085",
                                                  "!", ".", "/", "-", "$", "+", "\u20AC", "\u2026", "\U0001F642", "\u200D", "\x01", "\x7F", "\uFFFF", "\U00020000", "\U000323AF", "\xFF", "\xE2\x82", "_"};
  std::string text;
  for (int count = std::uniform_int_distribution<int>(1, 14)(random); count > 0; --count) {
    if (random() % 8 == 0) {
      uint32_t code = random() % 0x32000;
      if (code >= 0xD800 && code < 0xE000) code = 'q';
      append_utf8(text, code);
    } else {
      text += kParts[random() % kParts.size()];
    }
  }
  return text;
}

TEST(Scanners, SplitAsPcre2Does) {
  for (const KnownPattern& known : known_patterns()) {
    const PreTokenizer scanner({{.pattern = std::string(known.pattern)}}), pcre2({{.pattern = std::string(known.pattern)}}, false);
    std::mt19937 random(7);
    for (int i = 0; i < 2000; ++i) {
      const std::string text = random_text(random);
      Pieces ours, theirs;
      scanner.split(text, ours);
      pcre2.split(text, theirs);
      ASSERT_EQ(ours.pieces, theirs.pieces) << known.name << ": " << testing::PrintToString(text);
    }
  }
}

TEST(Scanners, FirstBytesSplitAsPcre2Does) {
  std::mt19937 random(9);
  for (int i = 0; i < 2000; ++i) {
    ByteSet bytes;
    for (int count = 0; count < 8; ++count) bytes.set(random() % 256);
    bytes.set('a').set(0x01).set(0xF0).reset(0x7F);  // PCRE2 sees DEL in the place of a stray byte
    const std::string pattern = first_bytes_pattern(bytes);
    for (const int never : {0xC0, 0xC1, 0xF5, 0xFF}) bytes.reset(never);
    for (int byte = 0x80; byte < 0x100; ++byte) bytes.set(byte, bytes[byte] && byte >= 0xC2 && byte <= 0xF4);
    ASSERT_EQ(read_first_bytes_pattern(pattern), bytes) << pattern;
    const PreTokenizer scanner({{.pattern = pattern}}), pcre2({{.pattern = pattern}}, false);
    const std::string text = random_text(random);
    Pieces ours, theirs;
    scanner.split(text, ours);
    pcre2.split(text, theirs);
    ASSERT_EQ(ours.pieces, theirs.pieces) << pattern << ": " << testing::PrintToString(text);
  }
  EXPECT_EQ(first_bytes_pattern(ByteSet().set(0xC0).set(0xFF)), "");
  for (const char* other : {"[a]", "[\\x{4}", "[\\x{04}]", "[^\\x{4}]", "[\\x{4}]+", "[\\x{4}-\\x{6}]", "[\\x{110000}]", "[\\x{FFFFFFFFFF}]", "", "\\x{"}) EXPECT_EQ(read_first_bytes_pattern(other), std::nullopt) << other;
}

TEST(Scanners, TotalPatternsLeaveNoGaps) {
  std::mt19937 random(8);
  for (const KnownPattern& known : known_patterns()) {
    const RegexSplitter splitter(known.pattern);
    bool gap = false;
    for (int i = 0; i < 500; ++i) {
      const std::string text = random_text(random);
      size_t end = 0;
      for (const MatchSpan& match : splitter.matches(text)) {
        gap = gap || match.begin != end;
        end = match.end;
      }
      gap = gap || end != text.size();
    }
    EXPECT_EQ(gap, !known.total) << known.name;
  }
}

TEST(RegexTranslation, RefusesWhatMeansDifferentThings) {
  for (const auto& [pattern, named] : std::initializer_list<std::pair<const char*, const char*>>{
           {"[a&&b]", "intersection"}, {"\\h", "'\\h'"}, {"\\w+", "'\\w'"}, {"\\bx", "'\\b'"}, {"a{2}+", "possessive"}, {"a{2}?", "after {n}"}, {"(?i:ss)", "ss"}, {"(?i:\u00E9)", "outside ASCII"},
           {"[[:alpha:]]", "inside a class"}, {"(?<name>a)", "a group other"}, {"(?s)a", "a group other"}, {"\\1", "'\\1'"}, {"\\p{Greek}", "Greek"}, {"a**", "quantifier of a quantifier"}, {"^*", "assertion"},
           {"[z-a]", "backwards"}, {"(a", "not closed"}, {"a)", "closes nothing"}, {"[a", "not closed"}, {"*", "nothing to repeat"}, {"\\", "unfinished"}, {"[\\P{L}]", "negated property"}}) {
    EXPECT_THAT([text = pattern] { RegexSplitter{text}; }, ThrowsMessage<UserError>(HasSubstr(named))) << pattern;
  }
  EXPECT_THAT([] { RegexSplitter(std::string(60, '(') + std::string(60, ')')); }, ThrowsMessage<UserError>(HasSubstr("nested deeper")));
}

TEST(RegexTranslation, MeansWhatOnigurumaMeans) {
  EXPECT_THAT(pieces("\\s+$", "a  \nb  "), ElementsAre("a", "  ", "\nb", "  "));  // $ at every line
  EXPECT_THAT(pieces("(?=(\\d{3})+(?!\\d))", "1234567"), ElementsAre("1", "234", "567"));
  EXPECT_THAT(pieces("x*", "axxb"), ElementsAre("a", "xx", "b"));
  EXPECT_THAT(pieces("\\p{L}{,2}", "abc"), ElementsAre("ab", "c"));
  EXPECT_THAT(pieces("(?i:'s|'t)", "a'\u017F'T"), ElementsAre("a", "'\u017F", "'T"));
  EXPECT_THAT(pieces("\\s", "a\u180Eb\u0085c"), ElementsAre("a\u180Eb", "\u0085", "c"));
  EXPECT_THAT(pieces("\\p{L}+", "\U000323AF1"), ElementsAre("\U000323AF", "1"));  // younger than this PCRE2's Unicode
}

TEST(RegexSplitter, EndlessBacktrackingIsAnError) {
  const RegexSplitter splitter("(?:(?:a+)+)+[bc]");   // with a single b PCRE2 sees at once that none follows
  EXPECT_THAT([&] { splitter.matches(std::string(200, 'a')); }, ThrowsMessage<UserError>(HasSubstr("bounded time")));
}

TEST(SplitRules, BehavioursOfTheLibrary) {
  const auto cut = [](SplitBehavior behavior, bool invert) { return pieces({{.pattern = "-", .behavior = behavior, .invert = invert}}, "a--b-c"); };
  EXPECT_THAT(cut(SplitBehavior::kIsolated, false), ElementsAre("a", "-", "-", "b", "-", "c"));
  EXPECT_THAT(cut(SplitBehavior::kRemoved, false), ElementsAre("a", "b", "c"));
  EXPECT_THAT(cut(SplitBehavior::kRemoved, true), ElementsAre("-", "-", "-"));
  EXPECT_THAT(cut(SplitBehavior::kMergedWithPrevious, false), ElementsAre("a-", "-", "b-", "c"));
  EXPECT_THAT(cut(SplitBehavior::kMergedWithNext, false), ElementsAre("a", "-", "-b", "-c"));
  EXPECT_THAT(cut(SplitBehavior::kContiguous, false), ElementsAre("a", "--", "b", "-", "c"));
}

TEST(SplitRules, ReadAndWritten) {
  const auto text = R"({"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\p{N}"},"behavior":"Isolated","invert":false},
    {"type":"Digits","individual_digits":true},{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":false}]})";
  const auto rules = read_split_rules(nlohmann::json::parse(text));
  ASSERT_EQ(rules.size(), 3u);
  EXPECT_EQ(read_split_rules(nlohmann::json::parse(split_rules_to_json(rules).dump())), rules);
  EXPECT_THAT(pieces(rules, "a1 b"), ElementsAre(" a", " 1", " b"));
}

TEST(SplitRules, UnknownStepsAreNamed) {
  const auto read = [](const char* text) { return [text] { read_split_rules(nlohmann::json::parse(text)); }; };
  EXPECT_THAT(read(R"({"type":"Metaspace"})"), ThrowsMessage<UserError>(HasSubstr("Metaspace")));
  EXPECT_THAT(read(R"({"type":"Digits","individual_digits":true})"), ThrowsMessage<UserError>(HasSubstr("ByteLevel as the last step")));
  EXPECT_THAT(read(R"({"type":"Sequence","pretokenizers":[{"type":"ByteLevel"},{"type":"Digits"}]})"), ThrowsMessage<UserError>(HasSubstr("ByteLevel as the last step")));
  EXPECT_THAT(read("null"), ThrowsMessage<UserError>(HasSubstr("null")));
}

}  // namespace
}  // namespace graft
