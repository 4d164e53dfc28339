// The unigram language model: a piece is cut into tokens so that the sum of their scores is largest. Kudo 2018, arXiv:1804.10959; the
// search as the sentencepiece library's EncodeOptimized.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/tokenizers/byte_tokens.h"

namespace graft {

// Which strings begin a text: a double array (Aoe 1989), one look-up for each byte.
class PrefixTrie {
 public:
  PrefixTrie() = default;
  // keys: sorted, not empty, each once; values: from 0 on.
  explicit PrefixTrie(const std::vector<std::pair<std::string_view, int32_t>>& keys);

  static constexpr uint32_t kRoot = 0;
  // The node behind `byte`, or 0 when there is none.
  uint32_t child(uint32_t node, unsigned char byte) const {
    const uint32_t next = cells_[node].base + byte;
    return cells_[next].parent == node ? next : 0;
  }
  int32_t value(uint32_t node) const { return cells_[node].value; }  // -1: no key ends here

 private:
  struct Cell {
    uint32_t base = 0, parent = kFree;
    int32_t value = -1;
  };
  static constexpr uint32_t kFree = ~0u;
  std::vector<Cell> cells_ = std::vector<Cell>(257);
};

class UnigramModel {
 public:
  struct Token {
    std::string_view spelling;
    int32_t id;
    double score;
    bool by_length = false;  // a user-defined token: the sentencepiece library scores it by its length, so that it wins
  };
  UnigramModel() = default;
  // single_precision: sums in float, as the sentencepiece library makes them; else in double, as tokenizers and llama.cpp do.
  UnigramModel(std::vector<Token> tokens, double least_score, ByteTokens byte_tokens, bool single_precision);

  void encode(std::string_view piece, std::vector<int32_t>& ids) const;

 private:
  template <typename Number>
  void search(std::string_view piece, std::vector<int32_t>& ids) const;

  struct Scored {
    int32_t id;
    double score;
    bool by_length;
  };
  std::vector<Scored> tokens_;  // by value of the trie
  PrefixTrie trie_;
  double unknown_score_ = 0;
  ByteTokens byte_tokens_;
  bool single_precision_ = false;
};

}  // namespace graft
