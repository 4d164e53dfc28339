// The "precompiled charsmap" of sentencepiece models: a trie of character sequences, each with what it becomes (NFKC with additions, as
// a rule). Layout: uint32 size of the trie in bytes, the trie (a double array of uint32 units, Darts), texts that end in a zero byte.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

class Charsmap {
 public:
  // UserError for bytes that are no charsmap.
  explicit Charsmap(std::string bytes);

  const std::string& bytes() const { return bytes_; }
  struct Match {
    size_t length = 0;             // bytes of the text
    std::string_view replacement;
  };
  // The longest sequence at the front of `text`.
  std::optional<Match> longest(std::string_view text) const { return match(text, false); }
  std::optional<Match> shortest(std::string_view text) const { return match(text, true); }
  // As the reference library tokenizers applies a charsmap: a grapheme of less than six bytes becomes what its shortest known front
  // does; else character by character.
  std::string replace_graphemes(std::string_view text) const;

 private:
  std::optional<Match> match(std::string_view text, bool first) const;

  std::string bytes_;
  std::vector<uint32_t> units_;
  std::string_view texts_;  // into bytes_
};

}  // namespace graft
