#include "data/tokenizers/byte_level_bpe.h"

#include <algorithm>

#include "checkpoints/hash.h"
#include "data/tokenizers/byte_alphabet.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

// Tokens with characters beside the byte alphabet (special ones, as a rule) stand for their own text.
std::string bytes_of_spelling(const std::string& spelling) { return unspell_bytes(spelling).value_or(spelling); }

}  // namespace

ByteLevelBpe::ByteLevelBpe(TokenizerParts parts) : VocabularyTokenizer(std::move(parts)) {
  index_vocabulary(bytes_of_spelling);
  if (parts_.ignore_merges) {
    for (const auto& [spelling, id] : ids_) {
      if (unspell_bytes(spelling)) ids_of_bytes_.emplace(bytes_[static_cast<size_t>(id)], id);
    }
  }
  pre_tokenizer_ = PreTokenizer(parts_.split_rules);
  merges_ = read_merges();
  std::array<int32_t, 256> byte_ids;
  bool complete = true;
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = ids_.find(spell_bytes(std::string(1, static_cast<char>(byte))));
    byte_ids[byte] = found == ids_.end() ? -1 : found->second;
    complete = complete && found != ids_.end();
  }
  model_ = BpeModel(byte_ids, merges_, complete ? -1 : unknown_id(), parts_.fuse_unknown);
  add_tokens([](const std::string& content, const std::string&) { return content; });
  fingerprint = make_fingerprint();
}

void ByteLevelBpe::encode_text(std::string_view text, bool at_start, std::vector<int32_t>& ids) const {
  Pieces pieces;
  pre_tokenizer_.split(text, pieces, at_start);
  PieceCache& cache = cache_.of_this_thread();
  for (const std::string_view piece : pieces.pieces) {
    cache.append(piece, ids, [&] { encode_piece(piece, ids); });
  }
}

void ByteLevelBpe::encode_piece(std::string_view piece, std::vector<int32_t>& ids) const {
  if (parts_.ignore_merges) {
    const auto whole = ids_of_bytes_.find(piece);
    if (whole != ids_of_bytes_.end()) {
      ids.push_back(whole->second);
      return;
    }
  }
  model_.encode(piece, ids);
}

bool ByteLevelBpe::merges_reach_every_token() const {
  std::vector<int32_t> ids;
  for (const auto& [bytes, id] : ids_of_bytes_) {
    if (added_.contains(id)) continue;  // found before the merges see the text
    ids.clear();
    model_.encode(bytes, ids);
    if (ids.size() != 1 || ids[0] != id) return false;
  }
  return true;
}

std::string ByteLevelBpe::make_fingerprint() const {
  Sha256 hash;
  hash_common(hash, "byte-level bpe 2");
  for (const Merge& merge : merges_) hash.update(fmt::format("{} {} {},", merge.left, merge.right, merge.rank));
  return hash.finish();
}

}  // namespace graft
