#include "data/tokenizers/sentencepiece_tokenizer.h"

#include <algorithm>

#include "checkpoints/hash.h"
#include "data/tokenizers/utf8.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

std::string with_spaces(const std::string& spelling) {
  std::string text;
  for (size_t i = 0; i < spelling.size();) {
    const bool space = spelling.compare(i, kSpaceSign.size(), kSpaceSign) == 0;
    text += space ? ' ' : spelling[i];
    i += space ? kSpaceSign.size() : 1;
  }
  return text;
}

std::string bytes_of_spelling(const std::string& spelling) {
  if (const auto byte = byte_of_token(spelling)) return std::string(1, static_cast<char>(*byte));
  return with_spaces(spelling);
}

bool is_valid_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const Utf8Char next = decode_utf8(text, i);
    if (next.code == kInvalidUtf8) return false;
    i += next.length;
  }
  return true;
}

}  // namespace

SentencepieceTokenizer::SentencepieceTokenizer(TokenizerParts parts) : VocabularyTokenizer(std::move(parts)) {
  index_vocabulary(bytes_of_spelling);
  drops_first_space = parts_.decoding_drops_first_space;
  pre_tokenizer_ = PreTokenizer(parts_.split_rules);
  const SymbolBpe::Vocabulary vocabulary{spellings_, ids_, unmatched_};
  if (!is_bpe()) {
    unigram_ = make_unigram();
  } else if (is_by_score()) {
    bpe_ = SymbolBpe(vocabulary, scores_, byte_tokens(), parts_.lead_byte_characters);
  } else {
    bpe_ = SymbolBpe(vocabulary, read_merges(), byte_tokens());
  }
  add_tokens([](const std::string&, const std::string& spelling) { return with_spaces(spelling); });
  fingerprint = make_fingerprint();
}

ByteTokens SentencepieceTokenizer::byte_tokens() const {
  ByteTokens tokens{.used = parts_.byte_fallback, .unknown = unknown_id(), .fuse_unknown = parts_.fuse_unknown};
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = ids_.find(spell_byte_token(static_cast<unsigned char>(byte)));
    tokens.ids[static_cast<size_t>(byte)] = found == ids_.end() ? -1 : found->second;
  }
  return tokens;
}

UnigramModel SentencepieceTokenizer::make_unigram() const {
  std::vector<UnigramModel::Token> tokens;
  for (const auto& [spelling, id] : ids_) {
    const auto i = static_cast<size_t>(id);
    if (!unmatched_[i]) tokens.push_back({spelling, id, scores_[i], always_taken_[i]});
  }
  ByteTokens bytes = byte_tokens();
  if (bytes.unknown >= 0 && !unmatched_[static_cast<size_t>(bytes.unknown)]) bytes.unknown_text = parts_.unknown_token;
  return UnigramModel(std::move(tokens), parts_.least_score, std::move(bytes), parts_.single_precision);
}

void SentencepieceTokenizer::encode_text(std::string_view text, bool at_start, std::vector<int32_t>& ids) const {
  if (parts_.split_rules.empty()) return encode_words(text, ids);
  Pieces pieces;
  pre_tokenizer_.split(text, pieces, at_start);
  for (const std::string_view piece : pieces.pieces) encode_words(piece, ids);
}

// Where no token reaches from one word into the next, BPE may take the words one by one. (Unigram may not: its sums round differently.)
void SentencepieceTokenizer::encode_words(std::string_view piece, std::vector<int32_t>& ids) const {
  PieceCache& cache = cache_.of_this_thread();
  const auto encode = [&](std::string_view part) {
    cache.append(part, ids, [&] { encode_piece(part, ids); });
  };
  // A broken character may reach over a space sign where llama.cpp cuts by first bytes.
  const bool broken = parts_.lead_byte_characters && !is_valid_utf8(piece);
  if (!is_bpe() || parts_.ignore_merges || broken || !bpe_.words_are_apart()) return encode(piece);
  size_t begin = 0;
  for (size_t at = piece.find(kSpaceSign); at != std::string_view::npos;) {
    if (at > begin) encode(piece.substr(begin, at - begin));
    begin = at;
    size_t letters = at + kSpaceSign.size();
    while (piece.compare(letters, kSpaceSign.size(), kSpaceSign) == 0) letters += kSpaceSign.size();
    at = piece.find(kSpaceSign, letters);
  }
  if (begin < piece.size()) encode(piece.substr(begin));
}

void SentencepieceTokenizer::encode_piece(std::string_view piece, std::vector<int32_t>& ids) const {
  if (!is_bpe()) return unigram_.encode(piece, ids);
  if (parts_.ignore_merges) {
    const auto whole = ids_.find(piece);
    if (whole != ids_.end()) return ids.push_back(whole->second);
  }
  bpe_.encode(piece, ids);
}

std::string SentencepieceTokenizer::make_fingerprint() const {
  Sha256 hash;
  hash_common(hash, is_bpe() ? "sentencepiece bpe 1" : "unigram 1");
  for (const Merge& merge : bpe_.merges()) hash.update(fmt::format("{} {} {},", merge.left, merge.right, merge.rank));
  for (size_t id = 0; id < scores_.size(); ++id) hash.update(fmt::format("{} {} {},", scores_[id], static_cast<bool>(unmatched_[id]), static_cast<bool>(always_taken_[id])));
  hash.update(fmt::format("{} {} {} {}", parts_.byte_fallback, parts_.single_precision, parts_.lead_byte_characters, parts_.least_score));
  return hash.finish();
}

}  // namespace graft
