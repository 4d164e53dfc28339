#include "data/tokenizers/unigram_model.h"

#include <algorithm>
#include <cmath>

#include "data/tokenizers/utf8.h"

namespace graft {
namespace {

constexpr double kUnknownPenalty = 10.0;
constexpr double kMostScore = 1e5;
constexpr int32_t kUnknown = -1;

}  // namespace

UnigramModel::UnigramModel(std::vector<Token> tokens, double least_score, ByteTokens byte_tokens, bool single_precision)
    : byte_tokens_(std::move(byte_tokens)), single_precision_(single_precision) {
  unknown_score_ = single_precision ? static_cast<float>(least_score) - static_cast<float>(kUnknownPenalty) : least_score - kUnknownPenalty;
  std::sort(tokens.begin(), tokens.end(), [](const Token& a, const Token& b) { return a.spelling < b.spelling; });
  std::vector<std::pair<std::string_view, int32_t>> keys;
  for (const Token& token : tokens) {
    if (token.spelling.empty()) continue;
    keys.emplace_back(token.spelling, static_cast<int32_t>(tokens_.size()));
    tokens_.push_back({token.id, token.score, token.by_length});
  }
  trie_ = PrefixTrie(keys);
}

void UnigramModel::encode(std::string_view piece, std::vector<int32_t>& ids) const {
  if (single_precision_) {
    search<float>(piece, ids);
  } else {
    search<double>(piece, ids);
  }
}

template <typename Number>
void UnigramModel::search(std::string_view piece, std::vector<int32_t>& ids) const {
  struct End {  // the best cut of the text up to here
    Number score = 0;
    int32_t token = kUnknown;
    int64_t begin = -1;  // of its last token; -1: not reached
  };
  thread_local std::vector<End> ends;
  ends.assign(piece.size() + 1, {});
  size_t furthest = 0;
  const auto consider = [&](size_t end, Number score, size_t begin, int32_t token) {
    End& best = ends[end];
    furthest = std::max(furthest, end);
    if (best.begin < 0 || score > best.score) best = {score, token, static_cast<int64_t>(begin)};
  };
  for (size_t begin = 0; begin < piece.size();) {
    const size_t length = decode_utf8(piece, begin).length;
    if (single_precision_ && std::abs(ends[begin].score) > kMostScore) {
      // As the library: in a long text the sums would lose their last digits.
      const Number offset = ends[begin].score;
      for (size_t i = begin; i <= furthest; ++i) {
        if (i == begin || ends[i].begin >= 0) ends[i].score -= offset;
      }
    }
    const Number so_far = ends[begin].score;
    bool has_character = false;
    uint32_t node = PrefixTrie::kRoot;
    for (size_t i = begin; i < piece.size(); ++i) {
      node = trie_.child(node, static_cast<unsigned char>(piece[i]));
      if (node == 0) break;
      const int32_t found = trie_.value(node);
      if (found < 0) continue;
      const Scored& token = tokens_[static_cast<size_t>(found)];
      const double score = token.by_length ? 0.1 * static_cast<double>(i - begin) : token.score;
      consider(i + 1, static_cast<Number>(score) + so_far, begin, token.id);
      has_character = has_character || i + 1 - begin == length;
    }
    if (!has_character) consider(begin + length, static_cast<Number>(unknown_score_) + so_far, begin, kUnknown);
    begin += length;
  }
  // Backwards; neighbours that are unknown are one.
  thread_local std::vector<std::pair<int32_t, std::string_view>> tokens;
  tokens.clear();
  for (size_t end = piece.size(); end > 0;) {
    const End& last = ends[end];
    const auto begin = static_cast<size_t>(last.begin);
    const bool is_unknown = last.token == kUnknown || last.token == byte_tokens_.unknown;
    if (is_unknown && byte_tokens_.fuse_unknown && !tokens.empty() && tokens.back().first == kUnknown) {
      tokens.back().second = piece.substr(begin, tokens.back().second.size() + end - begin);
    } else {
      tokens.emplace_back(is_unknown ? kUnknown : last.token, piece.substr(begin, end - begin));
    }
    end = begin;
  }
  bool after_unknown = false;
  for (auto token = tokens.rbegin(); token != tokens.rend(); ++token) {
    if (token->first == kUnknown) {
      byte_tokens_.append(token->second, after_unknown, ids);
    } else {
      ids.push_back(token->first);
      after_unknown = false;
    }
  }
}

}  // namespace graft
