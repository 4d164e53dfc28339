#include "trainer/generation/chat_session.h"

#include <algorithm>

#include "data/tokenizers/stream_decoder.h"
#include "kernels/common/error.h"

namespace graft {

ChatSession::ChatSession(const Decoder& decoder, const TemplateContext& context, std::string system)
    : context_(context), generator_(decoder, context.tokenizer), batch_(decoder), system_(std::move(system)) {
  reset();
}

void ChatSession::reset() {
  messages_ = nlohmann::ordered_json::array();
  if (!system_.empty()) messages_.push_back({{"role", "system"}, {"content", system_}});
  turn_ = 0;
}

at::Tensor ChatSession::read(const std::vector<int32_t>& prompt) {
  // The last token is read in any case: its hidden state gives the first logits.
  const auto common = std::min(common_prefix(cached_, prompt), prompt.size() - 1);
  tokens_read_ = static_cast<int64_t>(prompt.size() - common);
  if (common == 0) return batch_.start(std::span(&prompt, 1));
  batch_.cut_back(0, static_cast<int64_t>(common));
  const std::vector<int32_t> rest(prompt.begin() + static_cast<std::ptrdiff_t>(common), prompt.end());
  return batch_.extend(std::span(&rest, 1), Keep::kLast);
}

Generation ChatSession::answer(const std::string& text, GenerationOptions options, const std::function<bool(std::string_view)>& show) {
  check_sampling(options.sampling);
  auto messages = messages_;
  messages.push_back({{"role", "user"}, {"content", text}});
  const auto prompt = encode_prompt(context_, {{"messages", messages}}).ids;
  const auto context_size = generator_.decoder().spec().max_positions;
  if (prompt.empty() || static_cast<int64_t>(prompt.size()) > context_size) {
    fail("chat", "expected a conversation of 1 to {} tokens, the model's context, got {} — begin anew with /reset", context_size, prompt.size());
  }
  const auto hidden_DC = read(prompt);
  cached_.clear();   // until the answer is complete: an exception must not leave a wrong cache
  StreamDecoder decoder(context_.tokenizer);
  options.first_row = turn_++;
  options.on_token = [&](size_t, int32_t token) { return show(decoder.push(token)); };
  auto answer = generator_.continue_from(batch_, hidden_DC, std::span(&prompt, 1), options)[0];
  show(decoder.finish());
  messages.push_back({{"role", "assistant"}, {"content", answer.text}});
  messages_ = std::move(messages);
  cached_ = prompt;
  cached_.insert(cached_.end(), answer.ids.begin(), answer.ids.end());
  cached_.resize(std::min(cached_.size(), static_cast<size_t>(batch_.length(0))));
  return answer;
}

}  // namespace graft
