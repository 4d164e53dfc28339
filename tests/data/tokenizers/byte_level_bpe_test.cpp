#include "data/tokenizers/byte_level_bpe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "checkpoints/gguf_writer.h"
#include "kernels/common/error.h"
#include "tests/data/tokenizers/tiny_tokenizer.h"
#include "tests/support/files.h"

namespace graft {
namespace {

using nlohmann::json;
using test::tiny_tokenizer_json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

ByteLevelBpe make(const json& file) { return ByteLevelBpe(read_tokenizer_json(file, "tokenizer.json")); }
std::vector<std::string> words(const Tokenizer& tokenizer, std::string_view text, bool add_special = false) {
  std::vector<std::string> out;
  for (const int32_t id : tokenizer.encode(text, add_special)) out.push_back(tokenizer.token_bytes(id));
  return out;
}

TEST(ByteLevelBpe, MergesInOrderOfRank) {
  const auto tokenizer = make(tiny_tokenizer_json());
  EXPECT_THAT(words(tokenizer, "hello world"), ElementsAre("hello", " wo", "r", "l", "d"));  // " wo" comes before "or"
  EXPECT_THAT(words(tokenizer, "ababab"), ElementsAre("abab", "ab"));                        // the leftmost first
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("h\xC3\xA9llo \xF0\x9F\x99\x82\n", false)), "h\xC3\xA9llo \xF0\x9F\x99\x82\n");
}

TEST(ByteLevelBpe, StrayBytesComeBack) {
  const auto tokenizer = make(tiny_tokenizer_json());
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(all, false)), all);
}

TEST(ByteLevelBpe, SpecialTokensInTheText) {
  const auto tokenizer = make(tiny_tokenizer_json());
  const auto ids = tokenizer.encode("<|start|>hello<|end|><|end", false);
  EXPECT_EQ(ids.front(), *tokenizer.token_id("<|start|>"));
  EXPECT_TRUE(tokenizer.is_special(ids.front()));
  EXPECT_FALSE(tokenizer.is_special(ids[1]));
  EXPECT_EQ(tokenizer.decode(ids), "<|start|>hello<|end|><|end");
  EXPECT_EQ(tokenizer.decode(ids, true), "hello<|end");
  EXPECT_EQ(tokenizer.token_bytes(1 << 20), "");
}

TEST(ByteLevelBpe, LongAndShortPiecesMergeAlike) {
  // Random merges over three letters; the reference joins the best pair again and again.
  std::mt19937 random(3);
  std::array<int32_t, 256> bytes;
  bytes.fill(-1);
  for (int i = 0; i < 3; ++i) bytes["abc"[i]] = i;
  std::vector<Merge> merges;
  for (int32_t id = 3; id < 60; ++id) merges.push_back({static_cast<int32_t>(random() % id), static_cast<int32_t>(random() % id), id, static_cast<uint32_t>(id)});
  const BpeModel model(bytes, merges, -1, false);
  for (const size_t length : {1, 2, 30, 63, 64, 65, 200}) {
    std::string text;
    std::vector<int32_t> expected, found;
    for (size_t i = 0; i < length; ++i) text += "abc"[random() % 3];
    for (const char c : text) expected.push_back(bytes[static_cast<unsigned char>(c)]);
    for (bool joined = true; joined;) {
      joined = false;
      for (size_t rank = merges.size(); rank-- > 0;) {  // a pair that is listed twice has its last rank
        for (size_t later = rank + 1; later < merges.size(); ++later) {
          if (merges[later].left == merges[rank].left && merges[later].right == merges[rank].right) merges[rank].left = -1;
        }
      }
      for (const auto& merge : merges) {
        for (size_t i = 0; i + 1 < expected.size() && !joined; ++i) {
          if (expected[i] != merge.left || expected[i + 1] != merge.right) continue;
          expected[i] = merge.joined;
          expected.erase(expected.begin() + static_cast<std::ptrdiff_t>(i) + 1);
          joined = true;
        }
        if (joined) break;
      }
    }
    model.encode(text, found);
    EXPECT_EQ(found, expected) << length;
  }
}

TEST(ByteLevelBpe, LongTextTakesLinearithmicTime) {
  const auto tokenizer = make(tiny_tokenizer_json());
  EXPECT_EQ(tokenizer.encode(std::string(400'000, 'a') + std::string(400'000, 'b'), false).size(), 799'999u);  // one "ab"
}

TEST(ByteLevelBpe, BosAndEosOfATemplate) {
  auto file = tiny_tokenizer_json();
  const int start = file["added_tokens"][0]["id"], end = file["added_tokens"][1]["id"];
  file["post_processor"] = {{"type", "TemplateProcessing"},
                            {"single", {{{"SpecialToken", {{"id", "<|start|>"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}, {{"SpecialToken", {{"id", "<|end|>"}, {"type_id", 0}}}}}},
                            {"special_tokens", {{"<|start|>", {{"id", "<|start|>"}, {"ids", {start}}}}, {"<|end|>", {{"id", "<|end|>"}, {"ids", {end}}}}}}};
  const auto tokenizer = make(file);
  EXPECT_THAT(tokenizer.encode("", true), ElementsAre(start, end));
  EXPECT_THAT(tokenizer.encode("", false), ElementsAre());
}

TEST(ByteLevelBpe, IgnoreMergesTakesWholeTokens) {
  auto file = tiny_tokenizer_json();
  file["model"]["vocab"]["zz"] = 265;
  file["added_tokens"][0]["id"] = 266;
  file["added_tokens"][1]["id"] = 267;
  EXPECT_THAT(words(make(file), "zz"), ElementsAre("z", "z"));
  file["model"]["ignore_merges"] = true;
  EXPECT_THAT(words(make(file), "zz zzz"), ElementsAre("zz", " ", "z", "z", "z"));
}

TEST(ByteLevelBpe, BytesWithoutTokens) {
  auto file = tiny_tokenizer_json();
  file["model"]["vocab"].erase("Q");
  file["added_tokens"].clear();
  EXPECT_THAT(words(make(file), "aQQb"), ElementsAre("ab"));   // as the tokenizers library: dropped first, merged then
  file["model"]["unk_token"] = "!";
  EXPECT_THAT(words(make(file), "hQQo"), ElementsAre("h", "!", "!", "o"));
  file["model"]["fuse_unk"] = true;
  EXPECT_THAT(words(make(file), "hQQo"), ElementsAre("h", "!", "o"));
  file["model"]["unk_token"] = "nothing";
  EXPECT_THAT([&] { make(file); }, ThrowsMessage<UserError>(HasSubstr("unk_token 'nothing'")));
}

TEST(ByteLevelBpe, FingerprintSeesEveryPart) {
  const auto base = tiny_tokenizer_json();
  std::vector<std::string> seen = {make(base).fingerprint};
  EXPECT_EQ(make(base).fingerprint, seen[0]);
  EXPECT_EQ(seen[0].size(), 64u);
  const auto changed = [&](const char* pointer, const json& value) {
    auto file = base;
    file[json::json_pointer(pointer)] = value;
    seen.push_back(make(file).fingerprint);
  };
  changed("/normalizer", {{"type", "NFC"}});
  changed("/pre_tokenizer/add_prefix_space", true);
  changed("/model/ignore_merges", true);
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(std::unique(seen.begin(), seen.end()), seen.end());
}

TEST(ByteLevelBpe, WhatIsNotUnderstoodIsNamed) {
  const auto refused = [](const char* pointer, const json& value, const char* named) {
    auto file = tiny_tokenizer_json();
    file[json::json_pointer(pointer)] = value;
    EXPECT_THAT([&] { make(file); }, ThrowsMessage<UserError>(HasSubstr(named))) << pointer;
  };
  refused("/version", "2.0", "2.0");
  refused("/normalizer", {{"type", "Lowercase"}}, "Lowercase");
  refused("/pre_tokenizer", {{"type", "BertPreTokenizer"}}, "BertPreTokenizer");
  refused("/pre_tokenizer", {{"type", "Metaspace"}}, "Metaspace");
  refused("/pre_tokenizer", nullptr, "pre_tokenizer");
  refused("/model/type", "WordPiece", "WordPiece");
  refused("/model/type", "Unigram", "a list \"vocab\"");
  refused("/model/byte_fallback", true, "byte_fallback");
  refused("/model/dropout", 0.1, "dropout");
  refused("/model/end_of_word_suffix", "</w>", "end_of_word_suffix");
  refused("/model/merges/0", "h\u00E9 x", "merge 0");
  refused("/model/merges/0", "a b c", "merges as");
  refused("/model/merges/0", 7, "merges as");
  refused("/model/vocab/a", -1, "token ids");
  refused("/model/vocab/a", 98, "one token of id 98");
  refused("/model/vocab/a", 2000000000, "ids from 0 to");
  refused("/model/vocab/a", 2000000, "wide holes");
  refused("/post_processor", {{"type", "RobertaProcessing"}}, "RobertaProcessing");
  refused("/decoder", nullptr, "decoder ByteLevel");
  refused("/decoder", {{"type", "BPEDecoder"}}, "decoder ByteLevel");
  refused("/added_tokens/0/id", 999, "id 265");
  refused("/added_tokens", 5, "added_tokens");
}

TEST(AddedTokens, FlagsOfTheLibrary) {
  AddedTokenFinder finder;
  finder.add({.id = 1, .content = "<l>", .left_strip = true}, "<l>");
  finder.add({.id = 2, .content = "<r>", .right_strip = true}, "<r>");
  finder.add({.id = 3, .content = "word", .single_word = true}, "word");
  finder.add({.id = 4, .content = "<"}, "<");
  const auto parts = [&](std::string_view text) {
    std::vector<std::string> out;
    for (const TextPart& part : finder.split(text)) out.push_back(std::to_string(part.id) + ":" + std::string(part.text));
    return out;
  };
  EXPECT_THAT(parts("a  <l> b"), ElementsAre("-1:a", "1:  <l>", "-1: b"));
  EXPECT_THAT(parts("a <r> \n<l>b"), ElementsAre("-1:a ", "2:<r> \n", "1:<l>", "-1:b"));
  EXPECT_THAT(parts("word words sword word."), ElementsAre("3:word", "-1: words sword ", "3:word", "-1:."));
  EXPECT_THAT(parts("<x<l"), ElementsAre("4:<", "-1:x", "4:<", "-1:l"));
  EXPECT_THAT(parts(""), ElementsAre());
}

TEST(Export, TokenizerJsonReadsBack) {
  auto file = tiny_tokenizer_json();
  file["normalizer"] = {{"type", "NFC"}};
  const auto tokenizer = make(file);
  const auto again = make(json::parse(tokenizer.to_tokenizer_json().dump()));
  EXPECT_EQ(again.encode("hello <|end|> e\u0301", true), tokenizer.encode("hello <|end|> e\u0301", true));
  EXPECT_EQ(again.vocab_size(), tokenizer.vocab_size());
}

TEST(Export, GgufMetadataIsPaddedToTheRowsOfTheModel) {
  auto tokenizer = make(tiny_tokenizer_json());
  tokenizer.eos_id = tokenizer.token_id("<|end|>");
  tokenizer.stop_ids = {5};
  const auto entries = tokenizer.to_gguf_metadata(300);
  const auto value = [&](const std::string& key) {
    for (const GgufEntry& entry : entries) {
      if (entry.key == "tokenizer.ggml." + key) return entry.value;
    }
    return GgufValue(std::string("none"));
  };
  EXPECT_EQ(std::get<std::string>(value("pre")), "gpt-2");
  const auto tokens = std::get<std::vector<std::string>>(value("tokens"));
  const auto types = std::get<std::vector<int64_t>>(value("token_type"));
  ASSERT_EQ(tokens.size(), 300u);
  EXPECT_EQ(tokens[299], "[PAD299]");
  EXPECT_EQ(types[299], 5);
  EXPECT_EQ(types[static_cast<size_t>(*tokenizer.eos_id)], 3);
  EXPECT_EQ(std::get<uint64_t>(value("eot_token_id")), 5u);
  EXPECT_FALSE(std::get<bool>(value("add_bos_token")));
  EXPECT_THAT([&] { tokenizer.to_gguf_metadata(10); }, ThrowsMessage<UserError>(HasSubstr("rows of the embedding")));
}

class GgufTokenizer : public testing::Test {
 protected:
  std::shared_ptr<const Tokenizer> load(const std::string& key = "", const GgufEntry& changed = {}) {
    auto tokenizer = make(tiny_tokenizer_json());
    tokenizer.bos_id = tokenizer.token_id("<|start|>");
    tokenizer.eos_id = tokenizer.token_id("<|end|>");
    auto entries = tokenizer.to_gguf_metadata();
    std::erase_if(entries, [&](const GgufEntry& entry) { return entry.key == key; });
    if (!changed.key.empty()) entries.push_back(changed);
    const auto path = folder_ / "vocabulary.gguf";
    GgufWriter(path, entries, {}).finish();
    return load_tokenizer(path);
  }
  test::TemporaryFolder folder_;
};

TEST_F(GgufTokenizer, HasTheIdsOfTheJson) {
  const auto json_tokenizer = make(tiny_tokenizer_json());
  const auto tokenizer = load();
  EXPECT_EQ(tokenizer->encode("hello <|end|> world", true), json_tokenizer.encode("hello <|end|> world", true));
  EXPECT_EQ(tokenizer->bos_id, json_tokenizer.token_id("<|start|>"));
  EXPECT_EQ(tokenizer->special_tokens.dump(), R"({"bos_token":"<|start|>","eos_token":"<|end|>"})");
  EXPECT_TRUE(tokenizer->is_special(*tokenizer->eos_id));
}

TEST_F(GgufTokenizer, AddsBosWhenTheFileSaysSo) {
  const auto tokenizer = load("tokenizer.ggml.add_bos_token", gguf_bool("tokenizer.ggml.add_bos_token", true));
  EXPECT_THAT(tokenizer->encode("", true), ElementsAre(*tokenizer->bos_id));
}

TEST_F(GgufTokenizer, EndsOfTurns) {
  const auto tokenizer = load("", gguf_u32("tokenizer.ggml.eot_token_id", 7));
  EXPECT_THAT(tokenizer->stop_ids, ElementsAre(7));
}

// llama.cpp leaves such a byte out and does not merge across it; the reference library does.
TEST_F(GgufTokenizer, DoesNotMergeAcrossAByteWithoutToken) {
  json file = tiny_tokenizer_json();
  std::vector<std::string> tokens(file["model"]["vocab"].size() + 2);
  for (const auto& [token, id] : file["model"]["vocab"].items()) tokens[id] = token;
  for (const json& added : file["added_tokens"]) tokens[added["id"]] = added["content"];
  const int32_t h = file["model"]["vocab"]["h"], e = file["model"]["vocab"]["e"], he = file["model"]["vocab"]["he"];
  tokens['z'] = "unused";
  const auto tokenizer = load("tokenizer.ggml.tokens", gguf_strings("tokenizer.ggml.tokens", tokens));
  EXPECT_THAT(tokenizer->encode("hze", false), ElementsAre(h, e));
  EXPECT_THAT(tokenizer->encode("zhezz", false), ElementsAre(he));
  const auto written = make(json::parse(tokenizer->to_tokenizer_json().dump()));
  EXPECT_THAT(written.encode("hze", false), ElementsAre(h, e));
  EXPECT_EQ(written.to_gguf_metadata().front().key, tokenizer->to_gguf_metadata().front().key);  // its pre-tokenizer has its name again
  file["model"]["vocab"].erase("z");
  file["model"]["vocab"]["unused"] = 'z';
  EXPECT_THAT(make(file).encode("hze", false), ElementsAre(he));
}

TEST_F(GgufTokenizer, WhatIsNotUnderstoodIsNamed) {
  const auto refused = [&](const char* key, const GgufEntry& entry, const char* named) {
    EXPECT_THAT([&] { load(key, entry); }, ThrowsMessage<UserError>(HasSubstr(named))) << key;
  };
  refused("tokenizer.ggml.model", gguf_string("tokenizer.ggml.model", "rwkv"), "'rwkv'");
  refused("tokenizer.ggml.model", gguf_string("tokenizer.ggml.model", "llama"), "tokenizer.ggml.scores");
  refused("tokenizer.ggml.model", gguf_string("tokenizer.ggml.model", "t5"), "tokenizer.ggml.scores");
  refused("tokenizer.ggml.pre", gguf_string("tokenizer.ggml.pre", "viking"), "'viking'");
  refused("tokenizer.ggml.pre", {}, "smollm");
  refused("tokenizer.ggml.merges", {}, "no merges");
  refused("tokenizer.ggml.merges", gguf_strings("tokenizer.ggml.merges", {"hx"}), "'hx'");
  refused("tokenizer.ggml.token_type", gguf_i32s("tokenizer.ggml.token_type", {1, 2}), "as many");
  refused("tokenizer.ggml.bos_token_id", gguf_u32("tokenizer.ggml.bos_token_id", 100000), "bos_token_id below");
}

}  // namespace
}  // namespace graft
