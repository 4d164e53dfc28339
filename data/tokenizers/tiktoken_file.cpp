// A tiktoken file -> TokenizerParts: a line for each token, its bytes in base64 and its rank, which is its id. Neighbours whose bytes are
// together a token are joined, the least rank first (github.com/openai/tiktoken).
#include <algorithm>
#include <charconv>
#include <unordered_map>

#include "data/tokenizers/base64.h"
#include "data/tokenizers/byte_alphabet.h"
#include "data/tokenizers/tokenizer_sources.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

constexpr size_t kLongestToken = 4096;  // bytes; the longest in use have 256
constexpr size_t kMostPairBytes = 32;   // for each byte of the file; the vocabulary of SmolLM2 has 0.9, one of a, aa, aaa, ... any number

struct RankedToken {
  std::string bytes;
  int32_t rank = 0;
};

std::optional<RankedToken> read_line(std::string_view line) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  const auto bytes = from_base64(line.substr(0, space));
  const std::string_view digits = line.substr(space + 1);
  RankedToken token;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), token.rank);
  if (!bytes || bytes->empty() || bytes->size() > kLongestToken || error != std::errc() || end != digits.data() + digits.size() || token.rank < 0) return std::nullopt;
  token.bytes = *bytes;
  return token;
}

std::vector<RankedToken> read_lines(std::string_view file, const std::string& origin) {
  std::vector<RankedToken> tokens;
  size_t number = 0;
  while (!file.empty()) {
    const size_t end = std::min(file.find('\n'), file.size());
    std::string_view line = file.substr(0, end);
    file.remove_prefix(std::min(end + 1, file.size()));
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    auto token = read_line(line);
    if (!token) fail("tokenizers", "expected lines of a token in base64 and its rank, got '{}' ({}, line {}) — is the file whole?", line.substr(0, 60), origin, number);
    tokens.push_back(std::move(*token));
  }
  if (tokens.empty()) fail("tokenizers", "expected tokens, got an empty file ({}) — is the file whole?", origin);
  std::sort(tokens.begin(), tokens.end(), [](const RankedToken& a, const RankedToken& b) { return a.rank < b.rank; });
  return tokens;
}

}  // namespace

bool is_tiktoken_file(std::string_view file) { return read_line(file.substr(0, std::min(file.find('\n'), file.size()))).has_value(); }

TokenizerParts read_tiktoken_file(std::string_view file, const std::string& origin) {
  const std::vector<RankedToken> tokens = read_lines(file, origin);
  TokenizerParts parts;
  parts.origin = origin;
  parts.ignore_merges = true;
  std::unordered_map<std::string_view, int32_t> ranks;
  for (const RankedToken& token : tokens) {
    if (!ranks.emplace(token.bytes, token.rank).second) fail("tokenizers", "expected each token once, got that of rank {} twice ({}) — is the file broken?", token.rank, origin);
    parts.vocabulary.emplace_back(spell_bytes(token.bytes), token.rank);
  }
  // All pairs that make one token have its rank there, and ranks of their own here. That changes nothing: two parts that stand beside each other came about
  // without what is around them, so they are what joining makes of the token's bytes alone, and of the pairs of a token no text ever shows but that one.
  size_t pair_bytes = 0;
  for (const RankedToken& token : tokens) {
    const std::string_view bytes = token.bytes;
    for (size_t at = 1; at < bytes.size(); ++at) {
      if (!ranks.contains(bytes.substr(0, at)) || !ranks.contains(bytes.substr(at))) continue;
      parts.merges.emplace_back(spell_bytes(bytes.substr(0, at)), spell_bytes(bytes.substr(at)));
      pair_bytes += bytes.size();
      if (pair_bytes > kMostPairBytes * file.size()) {
        fail("tokenizers", "expected tokens that few pairs of others make, got {} pairs of {} bytes up to rank {} ({} of {} bytes) — is the file broken?", parts.merges.size(), pair_bytes,
             token.rank, origin, file.size());
      }
    }
  }
  return parts;
}

}  // namespace graft
