#include "data/tokenizers/byte_level_bpe.h"

#include <algorithm>
#include <atomic>
#include <map>

#include "checkpoints/hash.h"
#include "data/tokenizers/byte_alphabet.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

constexpr int32_t kMostIds = 1 << 21;       // the largest vocabulary in use has 262,144
constexpr size_t kLongestCachedPiece = 48;  // bytes; longer pieces seldom come again
constexpr size_t kMostCachedPieces = 1 << 16;

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
using PieceCache = std::unordered_map<std::string, std::vector<int32_t>, StringHash, std::equal_to<>>;

// Each thread remembers the ids of short pieces for each tokenizer: text repeats its words.
PieceCache& cache_of(uint64_t key) {
  thread_local std::map<uint64_t, PieceCache> caches;
  const auto found = caches.find(key);
  if (found != caches.end()) return found->second;
  if (caches.size() >= 8) caches.clear();  // tokenizers come and go in tests
  return caches[key];
}

}  // namespace

ByteLevelBpe::ByteLevelBpe(ByteLevelBpeParts parts) : parts_(std::move(parts)) {
  static std::atomic<uint64_t> next_key{1};
  cache_key_ = next_key++;
  index_vocabulary();
  pre_tokenizer_ = PreTokenizer(parts_.split_rules);
  merges_ = read_merges();
  std::array<int32_t, 256> byte_ids;
  bool complete = true;
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = ids_.find(spell_bytes(std::string(1, static_cast<char>(byte))));
    byte_ids[byte] = found == ids_.end() ? -1 : found->second;
    complete = complete && found != ids_.end();
  }
  int32_t unknown = -1;
  if (!complete && !parts_.unknown_token.empty()) {
    const auto found = ids_.find(parts_.unknown_token);
    if (found == ids_.end()) {
      fail("tokenizers", "expected the unk_token '{}' in the vocabulary, got none ({}) — some bytes have no token and would need it", parts_.unknown_token, parts_.origin);
    }
    unknown = found->second;
  }
  model_ = BpeModel(byte_ids, merges_, unknown, parts_.fuse_unknown);
  add_tokens();
  fingerprint = make_fingerprint();
}

void ByteLevelBpe::index_vocabulary() {
  int32_t largest = -1;
  for (const auto& [spelling, id] : parts_.vocabulary) {
    if (id < 0 || id >= kMostIds) fail("tokenizers", "expected ids from 0 to {}, got {} for '{}' ({}) — is the file broken?", kMostIds - 1, id, spelling, parts_.origin);
    largest = std::max(largest, id);
  }
  for (const AddedToken& token : parts_.added_tokens) {
    if (token.id < 0 || token.id >= kMostIds) fail("tokenizers", "expected ids from 0 to {}, got {} for '{}' ({}) — is the file broken?", kMostIds - 1, token.id, token.content, parts_.origin);
    largest = std::max(largest, token.id);
  }
  const size_t count = parts_.vocabulary.size() + parts_.added_tokens.size();
  if (static_cast<size_t>(largest + 1) > 4 * count + 4096) {
    fail("tokenizers", "expected ids without wide holes, got {} tokens and the id {} ({}) — is the file broken?", count, largest, parts_.origin);
  }
  for (const auto* around : {&parts_.before, &parts_.after}) {
    for (const int32_t id : *around) {
      if (id < 0 || id > largest) fail("tokenizers", "expected the special tokens around a text to have ids up to {}, got {} ({}) — is the file broken?", largest, id, parts_.origin);
    }
  }
  spellings_.resize(static_cast<size_t>(largest) + 1);
  bytes_.resize(spellings_.size());
  ids_.reserve(parts_.vocabulary.size());
  for (auto& [spelling, id] : parts_.vocabulary) {
    if (spelling.empty()) continue;  // stands for no text; it can never be encoded
    std::string& place = spellings_[static_cast<size_t>(id)];
    if (!place.empty()) fail("tokenizers", "expected one token of id {}, got '{}' and '{}' ({}) — is the file broken?", id, place, spelling, parts_.origin);
    place = std::move(spelling);
    // Tokens with characters beside the byte alphabet (special ones, as a rule) stand for their own text.
    bytes_[static_cast<size_t>(id)] = unspell_bytes(place).value_or(place);
    if (!ids_.emplace(place, id).second) fail("tokenizers", "expected '{}' once in the vocabulary, got it twice ({}) — is the file broken?", place, parts_.origin);
  }
  if (ids_.empty()) fail("tokenizers", "expected a vocabulary, got none ({}) — is the file whole?", parts_.origin);
  if (parts_.ignore_merges) {
    for (const auto& [spelling, id] : ids_) {
      if (unspell_bytes(spelling)) ids_of_bytes_.emplace(bytes_[static_cast<size_t>(id)], id);
    }
  }
  parts_.vocabulary.clear();
  parts_.vocabulary.shrink_to_fit();
}

std::vector<BpeModel::Merge> ByteLevelBpe::read_merges() const {
  std::vector<BpeModel::Merge> merges;
  merges.reserve(parts_.merges.size());
  const auto need = [&](const std::string& token, size_t rank) {
    const auto found = ids_.find(token);
    if (found == ids_.end()) fail("tokenizers", "expected the tokens of merge {} in the vocabulary, got '{}' which is not ({}) — vocabulary and merges belong to different tokenizers, or the file is cut", rank, token, parts_.origin);
    return found->second;
  };
  for (size_t rank = 0; rank < parts_.merges.size(); ++rank) {
    const auto& [left, right] = parts_.merges[rank];
    merges.push_back({need(left, rank), need(right, rank), need(left + right, rank)});
  }
  return merges;
}

void ByteLevelBpe::add_tokens() {
  parts_.merges.clear();
  parts_.merges.shrink_to_fit();
  for (const AddedToken& token : parts_.added_tokens) {
    if (token.content.empty()) fail("tokenizers", "expected added tokens with text, got an empty one of id {} ({}) — remove it", token.id, parts_.origin);
    std::string& place = spellings_[static_cast<size_t>(token.id)];
    if (!place.empty() && place != token.content) {
      fail("tokenizers", "expected one token of id {}, got '{}' in the vocabulary and the added token '{}' ({}) — is the file broken?", token.id, place, token.content, parts_.origin);
    }
    if (!added_.emplace(token.id, &token).second || !added_ids_.emplace(token.content, token.id).second) {
      fail("tokenizers", "expected the added token '{}' (id {}) once, got it twice ({}) — is the file broken?", token.content, token.id, parts_.origin);
    }
    if (place.empty()) place = token.content;
    bytes_[static_cast<size_t>(token.id)] = token.content;
    if (token.normalized) {
      in_normalized_text_.add(token, parts_.normalizer.normalize(token.content));
    } else {
      in_text_.add(token, token.content);
    }
  }
}

std::vector<int32_t> ByteLevelBpe::encode(std::string_view text, bool add_special) const {
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3 + 4);
  if (add_special) ids = parts_.before;
  for (const TextPart& part : in_text_.split(text)) {
    if (part.id >= 0) {
      ids.push_back(part.id);
      continue;
    }
    std::string normal;
    std::string_view ordinary = part.text;
    if (!parts_.normalizer.does_nothing()) ordinary = normal = parts_.normalizer.normalize(part.text);
    for (const TextPart& inner : in_normalized_text_.split(ordinary)) {
      if (inner.id >= 0) {
        ids.push_back(inner.id);
      } else {
        encode_text(inner.text, ids);
      }
    }
  }
  if (add_special) ids.insert(ids.end(), parts_.after.begin(), parts_.after.end());
  return ids;
}

void ByteLevelBpe::encode_text(std::string_view text, std::vector<int32_t>& ids) const {
  Pieces pieces;
  pre_tokenizer_.split(text, pieces);
  PieceCache& cache = cache_of(cache_key_);
  for (const std::string_view piece : pieces.pieces) {
    if (piece.size() > kLongestCachedPiece) {
      encode_piece(piece, ids);
      continue;
    }
    const auto found = cache.find(piece);
    if (found != cache.end()) {
      ids.insert(ids.end(), found->second.begin(), found->second.end());
      continue;
    }
    const size_t first = ids.size();
    encode_piece(piece, ids);
    if (cache.size() >= kMostCachedPieces) cache.clear();
    cache.emplace(piece, std::vector<int32_t>(ids.begin() + static_cast<std::ptrdiff_t>(first), ids.end()));
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

std::string ByteLevelBpe::token_bytes(int32_t id) const {
  return id >= 0 && id < vocab_size() ? bytes_[static_cast<size_t>(id)] : "";
}

bool ByteLevelBpe::is_special(int32_t id) const {
  const auto found = added_.find(id);
  return found != added_.end() && found->second->special;
}

std::optional<int32_t> ByteLevelBpe::token_id(std::string_view token) const {
  const auto added = added_ids_.find(token);
  if (added != added_ids_.end()) return added->second;
  const auto found = ids_.find(token);
  return found != ids_.end() ? std::optional(found->second) : std::nullopt;
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
  // Each text with its length, so that no two lists give the same bytes.
  const auto add = [&](std::string_view text) { hash.update(fmt::format("{}:", text.size())).update(text); };
  add("byte-level bpe 1");
  for (const std::string& spelling : spellings_) add(spelling);
  for (const BpeModel::Merge& merge : merges_) add(fmt::format("{} {}", merge.left, merge.right));
  for (const AddedToken& token : parts_.added_tokens) {
    add(token.content);
    add(fmt::format("{} {} {} {} {} {}", token.id, token.special, token.left_strip, token.right_strip, token.single_word, token.normalized));
  }
  add(parts_.normalizer.to_json().dump());
  add(split_rules_to_json(parts_.split_rules).dump());
  add(parts_.unknown_token);
  add(fmt::format("fuse_unknown {} ignore_merges {}", parts_.fuse_unknown, parts_.ignore_merges));
  for (const int32_t id : parts_.before) add(fmt::format("before {}", id));
  for (const int32_t id : parts_.after) add(fmt::format("after {}", id));
  return hash.finish();
}

}  // namespace graft
