#include "data/tokenizers/added_tokens.h"

#include "data/tokenizers/unicode_classes.h"

namespace graft {
namespace {

size_t white_space_before(std::string_view text, size_t position) {
  while (position > 0) {
    const size_t start = previous_utf8(text, position);
    if (!classed_char(text, start).is(kSpace)) break;
    position = start;
  }
  return position;
}
size_t white_space_after(std::string_view text, size_t position) {
  while (position < text.size()) {
    const ClassedChar next = classed_char(text, position);
    if (!next.is(kSpace)) break;
    position += next.length;
  }
  return position;
}
bool stands_alone(std::string_view text, size_t begin, size_t end) {
  const bool word_before = begin > 0 && classed_char(text, previous_utf8(text, begin)).is(kWord);
  const bool word_after = end < text.size() && classed_char(text, end).is(kWord);
  return !word_before && !word_after;
}

}  // namespace

AddedTokenFinder::AddedTokenFinder() : nodes_(1) {}

void AddedTokenFinder::add(const AddedToken& token, std::string_view spelling) {
  if (spelling.empty()) return;
  starts_[static_cast<unsigned char>(spelling[0])] = true;
  uint32_t node = 0;
  for (const char c : spelling) {
    const auto byte = static_cast<unsigned char>(c);
    uint32_t next = 0;
    for (const auto& [key, child] : nodes_[node].next) {
      if (key == byte) next = child;
    }
    if (next == 0) {
      next = static_cast<uint32_t>(nodes_.size());
      nodes_[node].next.emplace_back(byte, next);
      nodes_.emplace_back();
    }
    node = next;
  }
  nodes_[node].token = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
}

size_t AddedTokenFinder::longest_at(std::string_view text, size_t position, int32_t& token) const {
  size_t end = position;
  uint32_t node = 0;
  for (size_t i = position; i < text.size(); ++i) {
    uint32_t next = 0;
    for (const auto& [key, child] : nodes_[node].next) {
      if (key == static_cast<unsigned char>(text[i])) next = child;
    }
    if (next == 0) break;
    node = next;
    if (nodes_[node].token >= 0) {
      token = nodes_[node].token;
      end = i + 1;
    }
  }
  return end;
}

std::vector<TextPart> AddedTokenFinder::split(std::string_view text) const {
  std::vector<TextPart> parts;
  size_t done = 0;  // everything before it is in `parts`
  for (size_t i = 0; i < text.size();) {
    int32_t found = -1;
    if (!starts_[static_cast<unsigned char>(text[i])] || longest_at(text, i, found) == i) {
      ++i;
      continue;
    }
    size_t begin = i;
    size_t end = longest_at(text, i, found);
    i = end;
    const AddedToken& token = tokens_[static_cast<size_t>(found)];
    if (token.single_word && !stands_alone(text, begin, end)) continue;
    if (token.left_strip) begin = std::max(white_space_before(text, begin), done);
    if (token.right_strip) end = white_space_after(text, end);
    if (begin > done) parts.push_back({text.substr(done, begin - done), -1});
    parts.push_back({text.substr(begin, end - begin), token.id});
    done = end;
  }
  if (done < text.size()) parts.push_back({text.substr(done), -1});
  return parts;
}

}  // namespace graft
