// Which part of a rendered conversation the assistant wrote, for templates without generation blocks: found by rendering prefixes.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "data/templates/conversation.h"
#include "data/templates/rendered_text.h"
#include "data/templates/token_mask.h"

namespace graft {

// Renders messages with or without the generation prompt; throws TemplateError as ChatTemplate::render.
using RenderMessages = std::function<std::string(const nlohmann::ordered_json& messages, bool add_generation_prompt)>;

struct AssistantTurn {
  size_t message = 0;     // index into messages
  TextSpan span;          // of the whole conversation's text: what the model writes, its end token included
  size_t stable_until = 0;  // up to here the text is the same as when the conversation ended with this turn
  bool rewritten = false;   // later turns change the text of this turn or before it: it cannot be trained on here
  bool unasked = false;     // the text before the turn is not what a server would ask with: the answer itself changes it
};

// For each assistant message i, with T(k, g) the text of the first k messages with (g) or without generation prompt:
//   begins where T(i, true) ends, if T(i+1, false) goes on from there; else (templates that add or drop think blocks in history) where the
//   two part, if T(i+1, false) goes on from T(i, false) at least; without a generation prompt, where the message's content stands;
//   ends with the first special token after the content (and the tokens joined to it up to one of stop_ids), or with the content.
// text: T(all, false). specials: its special tokens. stop_ids: tokens that end a turn.
std::vector<AssistantTurn> find_assistant_turns(const RenderMessages& render, const nlohmann::ordered_json& messages, const std::string& text,
                                                const std::vector<SpecialToken>& specials, const std::vector<int32_t>& stop_ids);

}  // namespace graft
