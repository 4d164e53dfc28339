#include "trainer/evaluation/label_tokens.h"

#include <algorithm>

#include "kernels/common/error.h"

namespace graft {

RenderedAnswer render_answer(const TemplateContext& context, const nlohmann::ordered_json& prompt, const std::string& answer) {
  auto conversation = prompt;
  conversation["messages"].push_back({{"role", "assistant"}, {"content", answer}});
  const auto encoded = encode_conversation(context, conversation);
  const auto last = std::find(encoded.supervised.rbegin(), encoded.supervised.rend(), 1);
  if (last == encoded.supervised.rend()) {
    fail("evaluation", "expected a chat template that supervises the answer \"{}\", got none of its tokens — see graft render", answer);
  }
  const auto first = std::find(last, encoded.supervised.rend(), 0);
  const auto begin = encoded.supervised.rend() - first, end = encoded.supervised.rend() - last;   // of the last supervised run
  return {{encoded.ids.begin(), encoded.ids.begin() + begin}, {encoded.ids.begin() + begin, encoded.ids.begin() + end}};
}

void LabelTokens::make_trie(const nlohmann::ordered_json& prompt) {
  tokens_.clear();
  for (const auto& text : texts_) {
    tokens_.push_back(render_answer(context_, prompt, text).tokens);
    longest_ = std::max(longest_, static_cast<int64_t>(tokens_.back().size()));
  }
  trie_ = std::make_shared<LabelTrie>(tokens_);
}

LabelTokens::RowTrie LabelTokens::of_row(const Row& row, int32_t gold) {
  const auto prompt = prompt_of(row);
  auto rendered = render_answer(context_, prompt, texts_.at(static_cast<size_t>(gold)));
  if (!trie_ || tokens_[static_cast<size_t>(gold)] != rendered.tokens) make_trie(prompt);
  return {trie_, std::move(rendered.context)};
}

}  // namespace graft
