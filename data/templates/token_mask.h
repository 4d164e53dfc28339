// Spans of a text to tokens of its encoding.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/templates/rendered_text.h"
#include "data/tokenizers/tokenizer.h"

namespace graft {

struct SpecialToken {
  TextSpan span;   // where its text stands
  int32_t id = 0;
};

// Special tokens in the order of the text.
std::vector<SpecialToken> special_tokens_in(const Tokenizer& tokenizer, const std::string& text, const std::vector<int32_t>& ids);

// 1 for every token that lies wholly in a span. spans: sorted, disjoint. Where the tokens' bytes are not the text (a tokenizer that
// normalises), the text is encoded piece by piece instead; UserError when that gives other ids.
std::vector<uint8_t> mask_of(const Tokenizer& tokenizer, const std::string& text, const std::vector<int32_t>& ids,
                             const std::vector<TextSpan>& spans);

}  // namespace graft
