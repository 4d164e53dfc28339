// A small byte-level tokenizer.json for tests: all bytes, some merges, two special tokens.
#pragma once
#include <string>

#include <nlohmann/json.hpp>

#include "data/tokenizers/byte_alphabet.h"

namespace graft::test {

inline nlohmann::json tiny_tokenizer_json() {
  nlohmann::json vocabulary = nlohmann::json::object();
  int id = 0;
  for (int byte = 0; byte < 256; ++byte) vocabulary[spell_bytes(std::string(1, static_cast<char>(byte)))] = id++;
  nlohmann::json merges = nlohmann::json::array();
  // he, ll, llo, hello, " w" (Ġw), " wo", or, " wor", ab, abab
  const std::pair<const char*, const char*> pairs[] = {{"h", "e"}, {"l", "l"}, {"ll", "o"}, {"he", "llo"}, {"\u0120", "w"}, {"\u0120w", "o"}, {"o", "r"}, {"a", "b"}, {"ab", "ab"}};
  for (const auto& [left, right] : pairs) {
    vocabulary[std::string(left) + right] = id++;
    merges.push_back(std::string(left) + " " + right);
  }
  const auto added = [&](const char* text) {
    return nlohmann::json{{"id", id++}, {"content", text}, {"special", true}, {"normalized", false}, {"lstrip", false}, {"rstrip", false}, {"single_word", false}};
  };
  return {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr},
          {"added_tokens", nlohmann::json::array({added("<|start|>"), added("<|end|>")})}, {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}},
          {"post_processor", nullptr}, {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"dropout", nullptr}, {"unk_token", nullptr}, {"fuse_unk", false}, {"byte_fallback", false}, {"vocab", vocabulary}, {"merges", merges}}}};
}

}  // namespace graft::test
