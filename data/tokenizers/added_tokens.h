// Tokens that are found in the text before anything else: special tokens (<|im_end|>), and others that were added to a vocabulary.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;
  bool left_strip = false;   // takes the white space before it
  bool right_strip = false;  // and after it
  bool single_word = false;  // only between characters that belong to no word
  bool normalized = false;   // found in the normalised text
  bool operator==(const AddedToken&) const = default;
};

// A stretch of the text: an added token (id >= 0) or ordinary text (-1). An added token's stretch may overlap the one before it,
// when that one took its white space; only ordinary text is encoded, so nothing is encoded twice.
struct TextPart {
  std::string_view text;
  int32_t id = -1;
};

// Finds added tokens from left to right, the longest at each place.
class AddedTokenFinder {
 public:
  AddedTokenFinder();
  // `spelling` is what is searched for: the content, or its normal form.
  void add(const AddedToken& token, std::string_view spelling);
  bool empty() const { return tokens_.empty(); }
  std::vector<TextPart> split(std::string_view text) const;

 private:
  struct Node {
    std::vector<std::pair<unsigned char, uint32_t>> next;  // few
    int32_t token = -1;                                     // index into tokens_
  };
  size_t longest_at(std::string_view text, size_t position, int32_t& token) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
  std::array<bool, 256> starts_{};  // bytes with which a token begins
};

}  // namespace graft
