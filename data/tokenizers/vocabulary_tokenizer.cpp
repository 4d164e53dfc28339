#include "data/tokenizers/vocabulary_tokenizer.h"

#include <algorithm>
#include <cmath>

#include "checkpoints/hash.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

constexpr int32_t kMostIds = 1 << 21;  // the largest vocabulary in use has 262,144

}  // namespace

void VocabularyTokenizer::index_vocabulary(std::string (*bytes_of)(const std::string& spelling)) {
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
  for (const double score : parts_.scores) {
    if (!std::isfinite(score)) fail("tokenizers", "expected finite scores, got {} ({}) — is the file broken?", score, parts_.origin);
  }
  for (const auto* around : {&parts_.before, &parts_.after}) {
    for (const int32_t id : *around) {
      if (id < 0 || id > largest) fail("tokenizers", "expected the special tokens around a text to have ids up to {}, got {} ({}) — is the file broken?", largest, id, parts_.origin);
    }
  }
  spellings_.resize(static_cast<size_t>(largest) + 1);
  bytes_.resize(spellings_.size());
  if (!parts_.scores.empty()) scores_.resize(spellings_.size());
  unmatched_.resize(spellings_.size());
  always_taken_.resize(spellings_.size());
  ids_.reserve(parts_.vocabulary.size());
  for (size_t i = 0; i < parts_.vocabulary.size(); ++i) {
    auto& [spelling, id] = parts_.vocabulary[i];
    if (spelling.empty()) continue;  // stands for no text; it can never be encoded
    std::string& place = spellings_[static_cast<size_t>(id)];
    if (!place.empty()) fail("tokenizers", "expected one token of id {}, got '{}' and '{}' ({}) — is the file broken?", id, place, spelling, parts_.origin);
    place = std::move(spelling);
    bytes_[static_cast<size_t>(id)] = bytes_of(place);
    if (!parts_.scores.empty()) scores_[static_cast<size_t>(id)] = parts_.scores[i];
    if (!parts_.unmatched.empty()) unmatched_[static_cast<size_t>(id)] = parts_.unmatched[i];
    if (!parts_.always_taken.empty()) always_taken_[static_cast<size_t>(id)] = parts_.always_taken[i];
    if (!ids_.emplace(place, id).second) fail("tokenizers", "expected '{}' once in the vocabulary, got it twice ({}) — is the file broken?", place, parts_.origin);
  }
  if (ids_.empty()) fail("tokenizers", "expected a vocabulary, got none ({}) — is the file whole?", parts_.origin);
  parts_.vocabulary.clear();
  parts_.vocabulary.shrink_to_fit();
  parts_.scores = {};
  parts_.unmatched = {};
  parts_.always_taken = {};
}

std::vector<Merge> VocabularyTokenizer::read_merges() const {
  std::vector<Merge> merges;
  merges.reserve(parts_.merges.size());
  const auto need = [&](const std::string& token, size_t rank) {
    const auto found = ids_.find(token);
    if (found == ids_.end()) fail("tokenizers", "expected the tokens of merge {} in the vocabulary, got '{}' which is not ({}) — vocabulary and merges belong to different tokenizers, or the file is cut", rank, token, parts_.origin);
    return found->second;
  };
  for (size_t rank = 0; rank < parts_.merges.size(); ++rank) {
    const auto& [left, right] = parts_.merges[rank];
    const int32_t left_id = need(left, rank), right_id = need(right, rank), joined = need(left + right, rank);
    merges.push_back({left_id, right_id, joined, static_cast<uint32_t>(rank)});
  }
  return merges;
}

void VocabularyTokenizer::add_tokens(std::string (*bytes_of)(const std::string& content, const std::string& spelling)) {
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
    const std::string spelling = token.normalized ? parts_.normalizer.added_token(token.content) : token.content;
    bytes_[static_cast<size_t>(token.id)] = bytes_of(token.content, spelling);
    (token.normalized ? in_normalized_text_ : in_text_).add(token, spelling);
  }
}

std::vector<int32_t> VocabularyTokenizer::encode(std::string_view text, bool add_special) const {
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
        const bool at_start = part.text.data() == text.data() && inner.text.data() == ordinary.data();
        encode_text(inner.text, at_start, ids);
      }
    }
  }
  if (add_special) ids.insert(ids.end(), parts_.after.begin(), parts_.after.end());
  return ids;
}

std::string VocabularyTokenizer::token_bytes(int32_t id) const {
  return id >= 0 && id < vocab_size() ? bytes_[static_cast<size_t>(id)] : "";
}

bool VocabularyTokenizer::is_special(int32_t id) const {
  const auto found = added_.find(id);
  return found != added_.end() && found->second->special;
}

std::optional<int32_t> VocabularyTokenizer::token_id(std::string_view token) const {
  const auto added = added_ids_.find(token);
  if (added != added_ids_.end()) return added->second;
  const auto found = ids_.find(token);
  return found != ids_.end() ? std::optional(found->second) : std::nullopt;
}

int32_t VocabularyTokenizer::unknown_id() const {
  if (parts_.unknown_token.empty()) return -1;
  const auto found = ids_.find(parts_.unknown_token);
  if (found == ids_.end()) {
    fail("tokenizers", "expected the unk_token '{}' in the vocabulary, got none ({}) — some text has no token and would need it", parts_.unknown_token, parts_.origin);
  }
  return found->second;
}

void VocabularyTokenizer::hash_common(Sha256& hash, std::string_view kind) const {
  // Each text with its length, so that no two lists give the same bytes.
  const auto add = [&](std::string_view text) { hash.update(fmt::format("{}:", text.size())).update(text); };
  add(kind);
  for (const std::string& spelling : spellings_) add(spelling);
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
}

}  // namespace graft
