#include "data/templates/conversation.h"

#include "data/templates/assistant_spans.h"
#include "data/templates/rendered_row.h"
#include "data/templates/token_mask.h"
#include "data/templates/turn_stability.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

using Json = nlohmann::ordered_json;

std::vector<AssistantTurn> assistant_turns(const TemplateContext& context, const RenderedRow& row, const std::vector<int32_t>& ids) {
  return find_assistant_turns(row.renderer(), row.messages(), row.text(), special_tokens_in(*context.tokenizer, row.text(), ids),
                              end_tokens(*context.tokenizer));
}

std::vector<TextSpan> supervised_spans(const TemplateContext& context, const RenderedRow& row, const std::vector<int32_t>& ids) {
  if (context.chat_template->has_generation_blocks()) return tidy_spans(row.generation());
  std::vector<TextSpan> spans;
  for (const AssistantTurn& turn : assistant_turns(context, row, ids)) {
    if (turn.rewritten) {
      fail("template", "{}: message {} (assistant): expected its text to stay when later turns are added, but the template rewrites it, so a "
                       "server would never show the model this text — end the row at that message (one row for each answer), or give a "
                       "template with generation blocks as data.template",
           context.chat_template->name(), turn.message + 1);
    }
    if (turn.unasked) {
      fail("template", "{}: message {} (assistant): expected the text before it to be what a server asks with, but the template writes the "
                       "turns before it differently once the answer follows — see both with graft render; join the system message into "
                       "the first user turn, or give another template as data.template",
           context.chat_template->name(), turn.message + 1);
    }
    spans.push_back(turn.span);
  }
  return tidy_spans(std::move(spans));
}

}  // namespace

EncodedText encode_conversation(const TemplateContext& context, const Json& row) {
  const RenderedRow rendered(context, row, false);
  EncodedText encoded;
  encoded.text = rendered.text();
  encoded.ids = context.tokenizer->encode(encoded.text, false);
  encoded.supervised = mask_of(*context.tokenizer, encoded.text, encoded.ids, supervised_spans(context, rendered, encoded.ids));
  return encoded;
}

EncodedText encode_prompt(const TemplateContext& context, const Json& row) {
  const RenderedRow rendered(context, row, true);
  if (rendered.messages().back().at("role") == "assistant") {
    fail("template", "{}: expected a prompt that ends with the user's or a tool's turn, got message {} (assistant) at its end — leave the answer out",
         context.chat_template->name(), rendered.messages().size());
  }
  EncodedText encoded;
  encoded.text = rendered.text();
  encoded.ids = context.tokenizer->encode(encoded.text, false);
  encoded.supervised.assign(encoded.ids.size(), 0);
  return encoded;
}

std::vector<TurnStability> turn_stability(const TemplateContext& context, const Json& row) {
  const RenderedRow rendered(context, row, false);
  const std::vector<int32_t> ids = context.tokenizer->encode(rendered.text(), false);
  std::vector<TurnStability> result;
  for (const AssistantTurn& turn : assistant_turns(context, rendered, ids)) result.push_back({turn.message, !turn.rewritten, !turn.unasked});
  return result;
}

}  // namespace graft
