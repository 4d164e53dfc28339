// BPE over characters, as in sentencepiece: a piece starts as its characters, and the merges join them.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/tokenizers/added_tokens.h"
#include "data/tokenizers/byte_tokens.h"
#include "data/tokenizers/merge_table.h"

namespace graft {

class SymbolBpe {
 public:
  struct Vocabulary {
    const std::vector<std::string>& spellings;                         // by id
    const std::unordered_map<std::string_view, int32_t>& ids;
    const std::vector<bool>& unmatched;                                // by id: tokens that no text leads to
  };
  SymbolBpe() = default;
  // With listed merges (tokenizer.json).
  SymbolBpe(const Vocabulary& vocabulary, const std::vector<Merge>& merges, ByteTokens byte_tokens);
  // By scores (sentencepiece models, GGUF): any neighbours whose text is a token are joined, the best score first; a token may grow from
  // characters that are none themselves.
  SymbolBpe(const Vocabulary& vocabulary, std::span<const double> scores, ByteTokens byte_tokens, bool lead_byte_characters);

  // Appends the ids of one piece.
  void encode(std::string_view piece, std::vector<int32_t>& ids) const;
  // No token has a space sign behind another character, so that text may be cut before every word.
  bool words_are_apart() const { return words_are_apart_; }
  // Every two symbols (tokens, or characters) whose text is a token have a merge.
  bool joins_all_neighbours(const std::unordered_map<std::string_view, int32_t>& ids, const std::unordered_map<int32_t, const AddedToken*>& added) const;
  // Characters that are no tokens and yet parts of tokens.
  const std::vector<std::string>& bare_characters() const { return bare_; }
  const std::vector<Merge>& merges() const { return merges_list_; }

 private:
  int32_t symbol(uint32_t code) const;
  void add_character(std::string_view character, int32_t id);
  void note_spelling(std::string_view spelling);

  std::vector<int32_t> plane_ = std::vector<int32_t>(0x10000, -1);     // by code point below U+10000
  std::unordered_map<uint32_t, int32_t> beyond_;
  std::vector<std::string> bare_;  // bare characters; as symbols they have ids from num_tokens_ on
  int32_t num_tokens_ = 0;
  ByteTokens byte_tokens_;
  bool lead_byte_characters_ = false, words_are_apart_ = true;
  std::vector<Merge> merges_list_;
  MergeTable merges_;
};

}  // namespace graft
