#include "data/tokenizers/utf8.h"

#include <gtest/gtest.h>

#include "data/tokenizers/normalizer.h"
#include "data/tokenizers/stream_decoder.h"
#include "data/tokenizers/unicode_classes.h"

namespace graft {
namespace {

TEST(Utf8, EveryCodePointComesBack) {
  for (uint32_t code = 0; code < 0x110000; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    std::string text;
    append_utf8(text, code);
    const Utf8Char found = decode_utf8(text, 0);
    ASSERT_EQ(found.code, code);
    ASSERT_EQ(found.length, text.size());
    ASSERT_EQ(previous_utf8("a" + text, text.size() + 1), 1u);
  }
}

TEST(Utf8, BrokenBytesStandAlone) {
  for (const std::string text : {"\x80", "\xC0\xAF", "\xC3", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xF8\x88\x80\x80\x80", "\xFF"}) {
    EXPECT_EQ(decode_utf8(text, 0).code, kInvalidUtf8) << testing::PrintToString(text);
    EXPECT_EQ(decode_utf8(text, 0).length, 1u);
  }
}

TEST(Utf8, LossyTextIsRusts) {
  EXPECT_EQ(to_valid_utf8("a\xE2\x82" "b"), "a\uFFFDb");         // one for the started character
  EXPECT_EQ(to_valid_utf8("\xF0\x9F\x99"), "\uFFFD");
  EXPECT_EQ(to_valid_utf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");  // a surrogate starts nothing
  EXPECT_EQ(to_valid_utf8("\xE2\xE2\x82\xAC"), "\uFFFD\u20AC");
  EXPECT_EQ(to_valid_utf8("\xFF\xC3\xA9"), "\uFFFD\u00E9");
}

TEST(Utf8Stream, WaitsForTheLastByte) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xF0\x9F"), "a");
  EXPECT_EQ(stream.push("\x99"), "");
  EXPECT_EQ(stream.push("\x82!"), "\U0001F642!");
  EXPECT_EQ(stream.push("\xC3"), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.finish(), "");
}

TEST(Utf8Stream, AnyCutGivesTheSameText) {
  const std::string bytes = "x\u00E9\u20AC\U0001F642\xE2\x82 \xF4\x90\xC3";
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    Utf8Stream stream;
    std::string text = stream.push(bytes.substr(0, cut));
    text += stream.push(bytes.substr(cut));
    EXPECT_EQ(text + stream.finish(), to_valid_utf8(bytes)) << cut;
  }
}

TEST(UnicodeClasses, OfTheReferenceLibrary) {
  EXPECT_EQ(unicode_classes('a'), kLetter | kLowercase | kWord);
  EXPECT_EQ(unicode_classes(kInvalidUtf8), 0u);
  EXPECT_TRUE(unicode_classes(0x85) & kSpace);
  EXPECT_FALSE(unicode_classes(0x180E) & kSpace);
  EXPECT_TRUE(unicode_classes(0x10FFFD) == 0);
}

TEST(Normalizer, ComposesAndLeavesStrayBytes) {
  const Normalizer nfc(nlohmann::json{{"type", "NFC"}});
  EXPECT_EQ(nfc.normalize("e\u0301 \xFF A\u030A"), "\u00E9 \xFF \u00C5");
  EXPECT_EQ(nfc.normalize("\u1100\u1161\u11A8"), "\uAC01");
  EXPECT_EQ(nfc.normalize("\u0958"), "\u0915\u093C");  // excluded from composition
  const Normalizer nfkc(nlohmann::json{{"type", "NFKC"}});
  EXPECT_EQ(nfkc.normalize("\uFB01"), "fi");
  EXPECT_EQ(nfkc.normalize("\u32FF \U0001FBF0 \uA7F2\u0301"), "\u32FF \U0001FBF0 \uA7F2\u0301");  // decompositions newer than the library's Unicode
  EXPECT_EQ(Normalizer(nullptr).normalize("e\u0301"), "e\u0301");
}

}  // namespace
}  // namespace graft
