// Sentencepiece and tiktoken files: small ones made here, and damaged ones.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <limits>

#include "data/templates/token_mask.h"
#include "data/tokenizers/base64.h"
#include "data/tokenizers/merge_table.h"
#include "data/tokenizers/stream_decoder.h"
#include "data/tokenizers/tokenizer_sources.h"
#include "kernels/common/error.h"
#include "tests/support/files.h"

namespace graft {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}
std::string number_field(int number, uint64_t value) { return varint(static_cast<uint64_t>(number) << 3) + varint(value); }
std::string bytes_field(int number, const std::string& bytes) { return varint(static_cast<uint64_t>(number) << 3 | 2) + varint(bytes.size()) + bytes; }
std::string piece(const std::string& text, float score, int type = 1) {
  std::string bits(4, '\0');
  std::memcpy(bits.data(), &score, 4);
  return bytes_field(1, bytes_field(1, text) + varint(2 << 3 | 5) + bits + number_field(3, static_cast<uint64_t>(type)));
}

// <unk> <s> </s>, all bytes, then letters and words; the best score is joined first.
std::string model_file(int type = 2, bool with_bytes = true) {
  std::string file = piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3);
  for (int byte = 0; with_bytes && byte < 256; ++byte) {
    char text[8];
    std::snprintf(text, sizeof(text), "<0x%02X>", byte);
    file += piece(text, 0, 6);
  }
  float score = 0;
  for (const char* text : {"lo", "\u2581h", "el", "\u2581hello", "\u2581", "h", "e", "l", "o"}) file += piece(text, score -= 1);
  file += bytes_field(2, number_field(3, static_cast<uint64_t>(type)) + number_field(35, with_bytes ? 1 : 0));
  return file + bytes_field(3, number_field(3, 1) + number_field(4, 0) + number_field(5, 1));
}

std::shared_ptr<Tokenizer> tokenizer_of(const std::string& file) { return make_tokenizer(read_sentencepiece_model(file, "tokenizer.model")); }

std::vector<std::string> pieces(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::string> out;
  for (const int32_t id : tokenizer.encode(text, false)) out.push_back(tokenizer.token_bytes(id));
  return out;
}

TEST(SentencepieceFile, JoinsTheBestScoreAndFallsBackToBytes) {
  const auto tokenizer = tokenizer_of(model_file());
  EXPECT_THAT(pieces(*tokenizer, "hello"), ElementsAre(" h", "el", "lo"));  // "lo" first, then " h", then "el": " hello" has no two parts left
  EXPECT_THAT(pieces(*tokenizer, "h\u00E9 <s>l"), ElementsAre(" h", "\xC3", "\xA9", " ", "<s>", " ", "l"));
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("h\u00E9 hello", false)), "h\u00E9 hello");
  EXPECT_TRUE(tokenizer->is_special(1));
  EXPECT_FALSE(tokenizer->is_special(0));
}

TEST(SentencepieceFile, UnigramTakesTheBestSum) {
  // "hello": " h" -2, "el" -3, "lo" -1 is -6; " hello" alone is -4.
  const auto tokenizer = tokenizer_of(model_file(1));
  EXPECT_THAT(pieces(*tokenizer, "hello"), ElementsAre(" hello"));
  EXPECT_THAT(pieces(*tokenizer, "helxx"), ElementsAre(" h", "el", "x", "x"));
  const auto without_bytes = tokenizer_of(model_file(1, false));
  EXPECT_THAT(pieces(*without_bytes, "lo\u00E9\u00E9"), ElementsAre(" ", "lo", "<unk>"));
}

// The space that encoding puts before a text is in no text: streams and masks leave it out.
TEST(SentencepieceFile, TheSpaceInFrontIsNoText) {
  const std::shared_ptr<const Tokenizer> tokenizer = tokenizer_of(model_file());
  const auto ids = tokenizer->encode("<s>hello</s>", false);
  StreamDecoder stream(tokenizer);
  std::string text;
  for (const int32_t id : ids) text += stream.push(id);
  EXPECT_EQ(text, "hello");
  const auto mask = mask_of(*tokenizer, "<s>hello</s>", ids, {{3, 12}});
  EXPECT_THAT(mask, ElementsAre(0, 1, 1, 1, 1));
}

TEST(SentencepieceFile, DamagedFilesAreOneError) {
  const std::string file = model_file();
  const auto refused = [](const std::string& bytes, const char* named) {
    EXPECT_THAT([&] { tokenizer_of(bytes); }, ThrowsMessage<UserError>(HasSubstr(named))) << named;
  };
  refused(file.substr(0, file.size() - 3), "is the file whole?");
  refused("", "expected pieces");
  refused(file + "\x0B", "bytes that are none at offset");
  refused(model_file(3), "type unigram (1) or bpe (2), got 3");
  refused(file + piece("x\xFF", 0), "pieces of UTF-8 text");
  refused(file + piece("", 0), "got none for piece");
  refused(file + piece("other", 0, 2), "one unknown piece");
  refused(file + piece("gone", 0, 5), "no unused pieces");
  refused(file + piece("new", std::numeric_limits<float>::infinity()), "finite scores");
  refused(file + piece("lo", 0), "once in the vocabulary");
  refused(piece("a", 0) + piece("b", -1), "expected an unknown piece");
  refused(file + bytes_field(3, bytes_field(2, "no charsmap")), "precompiled charsmap");
}

TEST(TiktokenFile, JoinsByRankWholePiecesFirst) {
  // a b c d, then "bc" before "ab"; "abcd" is a token that no merges lead to.
  TokenizerParts parts = read_tiktoken_file("YQ== 0\nYg== 1\nYw== 2\nZA== 3\nYmM= 4\nYWI= 5\nYWJjZA== 6\n", "tiktoken.model");
  parts.split_rules = {{.kind = SplitRule::Kind::kByteLevel, .use_regex = false}};
  const auto tokenizer = make_tokenizer(std::move(parts));
  EXPECT_THAT(pieces(*tokenizer, "abc"), ElementsAre("a", "bc"));
  EXPECT_THAT(pieces(*tokenizer, "abd"), ElementsAre("ab", "d"));
  EXPECT_THAT(pieces(*tokenizer, "abcd"), ElementsAre("abcd"));
  EXPECT_EQ(tokenizer->vocab_size(), 7);
}

// Different pairs may have one rank (pieces of equal score in sentencepiece): then the leftmost pair is joined.
TEST(MergeTable, PairsOfOneRankAreJoinedFromTheLeft) {
  const auto joined = [](uint32_t rank) {
    std::vector<int32_t> ids = {1, 2, 3};
    MergeTable({{2, 3, 9, 0}, {1, 2, 9, rank}}).apply(ids, 0);
    return ids;
  };
  EXPECT_THAT(joined(0), ElementsAre(9, 3));
  EXPECT_THAT(joined(1), ElementsAre(1, 9));
}

TEST(TiktokenFile, DamagedFilesAreOneError) {
  const auto refused = [](const char* file, const char* named) {
    EXPECT_THAT([&] { read_tiktoken_file(file, "tiktoken.model"); }, ThrowsMessage<UserError>(HasSubstr(named))) << file;
  };
  refused("", "an empty file");
  refused("YQ== 0\nYg==", "line 2");
  refused("YQ== 0\nY!== 1\n", "line 2");
  refused("YQ== 0\nYg== -1\n", "line 2");
  refused("YQ== 0\nYQ== 1\n", "each token once");
  std::string many;   // a, aa, aaa, ...: as many pairs as the square of the tokens
  for (size_t length = 1; length <= 255; ++length) many += to_base64(std::string(length, 'a')) + fmt::format(" {}\n", length);
  refused(many.c_str(), "few pairs");
  EXPECT_FALSE(is_tiktoken_file(model_file()));
  EXPECT_TRUE(is_tiktoken_file("YQ== 0\n"));
}

class Directory : public testing::Test {
 protected:
  void write(const char* name, const std::string& text) { std::ofstream(folder_ / name, std::ios::binary) << text; }
  test::TemporaryFolder folder_;
};

TEST_F(Directory, NamesTheFilesItLooksFor) {
  EXPECT_THAT([&] { load_tokenizer(folder_.path()); }, ThrowsMessage<UserError>(HasSubstr("tiktoken.model, hunyuan.tiktoken")));
  write("tokenizer.model", "YQ== 0\n");
  EXPECT_THAT([&] { load_tokenizer(folder_.path()); }, ThrowsMessage<UserError>(HasSubstr("tokenizer_class of TikTokenTokenizer, ChatGLM4Tokenizer")));
  write("tokenizer_config.json", R"({"tokenizer_class": "TikTokenTokenizer", "added_tokens_decoder": {"999999": {"content": "x"}}})");
  EXPECT_THAT([&] { load_tokenizer(folder_.path()); }, ThrowsMessage<UserError>(HasSubstr("got the id 999999")));
}

TEST_F(Directory, BosAsTheClassPutsIt) {
  write("tokenizer.model", model_file());
  write("tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizer"})");
  EXPECT_THAT(load_tokenizer(folder_.path())->encode("", true), ElementsAre(1));
  write("tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizer", "add_bos_token": false, "add_eos_token": true})");
  EXPECT_THAT(load_tokenizer(folder_.path())->encode("", true), ElementsAre(2));
  EXPECT_EQ(load_tokenizer(folder_.path())->special_tokens.dump(), R"({"bos_token":"<s>","eos_token":"</s>","unk_token":"<unk>"})");
}

}  // namespace
}  // namespace graft
