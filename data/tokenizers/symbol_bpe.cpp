#include "data/tokenizers/symbol_bpe.h"

#include <algorithm>
#include <functional>

#include "data/tokenizers/normalizer.h"
#include "data/tokenizers/utf8.h"

namespace graft {
namespace {

constexpr int32_t kNone = -1;

// llama.cpp takes as many bytes as the first one announces, whatever follows.
size_t announced_length(unsigned char lead) {
  constexpr uint8_t kLengths[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4};
  return kLengths[lead >> 4];
}

bool is_one_character(std::string_view text) {
  const Utf8Char first = decode_utf8(text, 0);
  return first.code != kInvalidUtf8 && first.length == text.size();
}

}  // namespace

void SymbolBpe::note_spelling(std::string_view spelling) {
  const size_t text = spelling.find_first_not_of(kSpaceSign);  // of its bytes; another character may begin with them
  const size_t begin = text == std::string_view::npos ? spelling.size() : text / kSpaceSign.size() * kSpaceSign.size();
  if (spelling.find(kSpaceSign, begin) != std::string_view::npos) words_are_apart_ = false;
}

void SymbolBpe::add_character(std::string_view character, int32_t id) {
  const uint32_t code = decode_utf8(character, 0).code;
  if (code < plane_.size()) {
    plane_[code] = id;
  } else {
    beyond_[code] = id;
  }
}

int32_t SymbolBpe::symbol(uint32_t code) const {
  if (code < plane_.size()) return plane_[code];
  const auto found = beyond_.find(code);
  return found != beyond_.end() ? found->second : kNone;
}

SymbolBpe::SymbolBpe(const Vocabulary& vocabulary, const std::vector<Merge>& merges, ByteTokens byte_tokens)
    : num_tokens_(static_cast<int32_t>(vocabulary.spellings.size())), byte_tokens_(std::move(byte_tokens)), merges_list_(merges), merges_(merges) {
  for (const auto& [spelling, id] : vocabulary.ids) {
    if (is_one_character(spelling)) add_character(spelling, id);
  }
  for (const Merge& merge : merges) note_spelling(vocabulary.spellings[static_cast<size_t>(merge.joined)]);
}

SymbolBpe::SymbolBpe(const Vocabulary& vocabulary, std::span<const double> scores, ByteTokens byte_tokens, bool lead_byte_characters)
    : num_tokens_(static_cast<int32_t>(vocabulary.spellings.size())), byte_tokens_(std::move(byte_tokens)), lead_byte_characters_(lead_byte_characters) {
  struct Piece {
    std::string_view spelling;
    int32_t id;
    double score;
  };
  std::vector<Piece> pieces;
  for (const auto& [spelling, id] : vocabulary.ids) {
    if (vocabulary.unmatched[static_cast<size_t>(id)]) continue;
    if (is_one_character(spelling)) add_character(spelling, id);
    pieces.push_back({spelling, id, scores[static_cast<size_t>(id)]});
  }
  std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.score != b.score ? a.score > b.score : a.id < b.id; });
  std::unordered_map<std::string_view, int32_t> bare;
  // The symbol that a part of a token is before it is joined: a token, or one character.
  const auto part = [&](std::string_view text) {
    const auto found = vocabulary.ids.find(text);
    if (found != vocabulary.ids.end() && !vocabulary.unmatched[static_cast<size_t>(found->second)]) return found->second;
    if (!is_one_character(text)) return kNone;
    const auto [place, is_new] = bare.emplace(text, num_tokens_ + static_cast<int32_t>(bare.size()));
    if (is_new) {
      bare_.emplace_back(text);
      add_character(text, place->second);
    }
    return place->second;
  };
  uint32_t rank = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const auto& [spelling, id, score] = pieces[i];
    if (i > 0 && score != pieces[i - 1].score) ++rank;
    for (size_t at = decode_utf8(spelling, 0).length; at < spelling.size(); at += decode_utf8(spelling, at).length) {
      const int32_t left = part(spelling.substr(0, at));
      if (left == kNone) continue;
      const int32_t right = part(spelling.substr(at));
      if (right != kNone) merges_list_.push_back({left, right, id, rank});
    }
    note_spelling(spelling);
  }
  merges_ = MergeTable(merges_list_);
}

bool SymbolBpe::joins_all_neighbours(const std::unordered_map<std::string_view, int32_t>& ids, const std::unordered_map<int32_t, const AddedToken*>& added) const {
  std::unordered_map<int32_t, size_t> listed;
  for (const Merge& merge : merges_list_) ++listed[merge.joined];
  const auto is_symbol = [&](std::string_view text) { return ids.contains(text) || is_one_character(text); };
  return std::all_of(ids.begin(), ids.end(), [&](const auto& token) {
    const std::string_view spelling = token.first;
    if (added.contains(token.second) || byte_of_token(spelling)) return true;
    size_t splits = 0;
    for (size_t at = 1; at < spelling.size(); ++at) splits += is_symbol(spelling.substr(0, at)) && is_symbol(spelling.substr(at));
    const auto found = listed.find(token.second);
    return splits <= (found == listed.end() ? 0 : found->second);
  });
}

void SymbolBpe::encode(std::string_view piece, std::vector<int32_t>& ids) const {
  const size_t first = ids.size();
  bool after_unknown = false, bare = false;
  for (size_t i = 0; i < piece.size();) {
    Utf8Char next = decode_utf8(piece, i);
    if (lead_byte_characters_) next.length = static_cast<uint32_t>(std::min(announced_length(static_cast<unsigned char>(piece[i])), piece.size() - i));
    const int32_t id = next.code == kInvalidUtf8 ? kNone : symbol(next.code);
    if (id != kNone) {
      ids.push_back(id);
      after_unknown = false;
      bare = bare || id >= num_tokens_;
    } else {
      byte_tokens_.append(piece.substr(i, next.length), after_unknown, ids);
    }
    i += next.length;
  }
  merges_.apply(ids, first);
  if (!bare) return;
  // Characters that no merge took.
  const std::vector<int32_t> symbols(ids.begin() + static_cast<std::ptrdiff_t>(first), ids.end());
  ids.resize(first);
  after_unknown = false;
  for (const int32_t id : symbols) {
    if (id < num_tokens_) {
      ids.push_back(id);
      after_unknown = byte_tokens_.unknown == id;
    } else {
      byte_tokens_.append(bare_[static_cast<size_t>(id - num_tokens_)], after_unknown, ids);
    }
  }
}

}  // namespace graft
