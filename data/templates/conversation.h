// A conversation to token ids with the mask of what is supervised: the assistant's tokens and its end token, nothing else.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/templates/chat_template.h"
#include "data/tokenizers/tokenizer.h"

namespace graft {

struct EncodedText {
  std::string text;                  // what was tokenised
  std::vector<int32_t> ids;
  std::vector<uint8_t> supervised;   // 1: this token is a training target
};

struct TemplateContext {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const ChatTemplate> chat_template;   // may be null: then only text and completion rows can be encoded
  nlohmann::ordered_json arguments = nlohmann::ordered_json::object();   // data.template_arguments
  int64_t now = 0;                                      // data.template_date, unix seconds UTC
};

// {"messages": [...], "tools"?: [...], ...}: one line of a JSONL file. Renders it (JSON-text tool arguments become mappings when the
// template needs them, None content "" only if the template fails), and finds the assistant spans: generation blocks where the
// template has them, else by rendering prefixes (turn by turn) and comparing; the turn's end token (the text the template writes right after the
// content, up to and including the first special token) is supervised, trailing newlines after it are not.
// BOS/EOS: only what the template writes (encode(..., add_special=false)). Errors: unknown role, template failure, a turn whose prefix
// changes when later turns are added (named), with message index.
EncodedText encode_conversation(const TemplateContext& context, const nlohmann::ordered_json& row);

// The prompt that a server would send: add_generation_prompt=true, nothing supervised. `messages` must not end with an assistant turn.
EncodedText encode_prompt(const TemplateContext& context, const nlohmann::ordered_json& row);

}  // namespace graft
