#include "data/templates/token_mask.h"

#include <optional>

#include "kernels/common/error.h"

namespace graft {
namespace {

// Byte offset of the end of every token; nullopt when the tokens' bytes are not the text.
std::optional<std::vector<size_t>> token_ends(const Tokenizer& tokenizer, const std::string& text, const std::vector<int32_t>& ids) {
  std::vector<size_t> ends;
  ends.reserve(ids.size());
  size_t position = 0;
  for (const int32_t id : ids) {
    std::string bytes = tokenizer.token_bytes(id);
    if (text.compare(position, bytes.size(), bytes) != 0) {
      // Sentencepiece puts a space before a stretch of text that the text does not have.
      if (!tokenizer.drops_first_space || !bytes.starts_with(' ')) return std::nullopt;
      bytes.erase(0, 1);
      if (text.compare(position, bytes.size(), bytes) != 0) return std::nullopt;
    }
    position += bytes.size();
    ends.push_back(position);
  }
  return position == text.size() ? std::optional(std::move(ends)) : std::nullopt;
}

std::vector<uint8_t> mask_by_offsets(const std::vector<size_t>& ends, const std::vector<TextSpan>& spans) {
  std::vector<uint8_t> mask(ends.size(), 0);
  size_t begin = 0, span = 0;
  for (size_t i = 0; i < ends.size(); ++i) {
    while (span < spans.size() && spans[span].end < ends[i]) ++span;
    mask[i] = span < spans.size() && spans[span].begin <= begin && ends[i] <= spans[span].end;
    begin = ends[i];
  }
  return mask;
}

std::vector<uint8_t> mask_by_pieces(const Tokenizer& tokenizer, const std::string& text, const std::vector<int32_t>& ids,
                                    const std::vector<TextSpan>& spans) {
  std::vector<int32_t> joined;
  std::vector<uint8_t> mask;
  const auto add = [&](size_t begin, size_t end, uint8_t supervised) {
    if (begin == end) return;
    const std::vector<int32_t> piece = tokenizer.encode(std::string_view(text).substr(begin, end - begin), false);
    joined.insert(joined.end(), piece.begin(), piece.end());
    mask.insert(mask.end(), piece.size(), supervised);
  };
  size_t position = 0;
  for (const TextSpan& span : spans) {
    add(position, span.begin, 0);
    add(span.begin, span.end, 1);
    position = span.end;
  }
  add(position, text.size(), 0);
  if (joined != ids) {
    fail("template", "expected the tokenizer to encode a conversation like its turns one by one, got {} tokens against {} — this "
                     "tokenizer changes text at the turns' borders, so the assistant's tokens cannot be told apart",
         ids.size(), joined.size());
  }
  return mask;
}

}  // namespace

std::vector<SpecialToken> special_tokens_in(const Tokenizer& tokenizer, const std::string& text, const std::vector<int32_t>& ids) {
  std::vector<SpecialToken> found;
  size_t position = 0;
  for (const int32_t id : ids) {
    if (!tokenizer.is_special(id)) continue;
    const std::string bytes = tokenizer.token_bytes(id);
    const size_t begin = bytes.empty() ? std::string::npos : text.find(bytes, position);
    if (begin == std::string::npos) continue;
    position = begin + bytes.size();
    found.push_back({{begin, position}, id});
  }
  return found;
}

std::vector<uint8_t> mask_of(const Tokenizer& tokenizer, const std::string& text, const std::vector<int32_t>& ids,
                             const std::vector<TextSpan>& spans) {
  if (const auto ends = token_ends(tokenizer, text, ids)) return mask_by_offsets(*ends, spans);
  return mask_by_pieces(tokenizer, text, ids, spans);
}

}  // namespace graft
