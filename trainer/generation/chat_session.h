// A conversation with one model: each turn reads only what the cache does not hold yet.
#pragma once
#include <functional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "data/templates/conversation.h"
#include "trainer/generation/generator.h"

namespace graft {

class ChatSession {
 public:
  // system: empty for none. Both references outlive the session.
  ChatSession(const Decoder& decoder, const TemplateContext& context, std::string system);

  // The answer to `text`, which joins the conversation with it. show: pieces of the answer, whole characters; false ends the answer.
  Generation answer(const std::string& text, GenerationOptions options, const std::function<bool(std::string_view)>& show);
  // Begins anew, with the system message.
  void reset();
  // The model behind the decoder has changed (adapters on or off): what was computed is void, the conversation stays.
  void forget_cache() { cached_.clear(); }

  const nlohmann::ordered_json& messages() const { return messages_; }
  int64_t tokens_read() const { return tokens_read_; }   // of the last turn's prompt: those that the cache did not hold

 private:
  at::Tensor read(const std::vector<int32_t>& prompt);

  const TemplateContext& context_;
  Generator generator_;
  SequenceBatch batch_;
  std::string system_;
  nlohmann::ordered_json messages_;
  std::vector<int32_t> cached_;     // tokens whose keys and values batch_ holds
  uint64_t turn_ = 0;               // counter of the random numbers
  int64_t tokens_read_ = 0;
};

}  // namespace graft
