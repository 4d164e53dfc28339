#include "data/templates/render_line.h"

#include <algorithm>

#include "data/templates/assistant_spans.h"
#include "data/templates/jinja/error.h"
#include "data/templates/rendered_row.h"
#include "data/templates/template_variables.h"
#include "data/templates/token_mask.h"

namespace graft {
namespace {

using Json = nlohmann::ordered_json;

const char* kind_name(TemplateError::Kind kind) {
  switch (kind) {
    case TemplateError::Kind::kSyntax: return "syntax";
    case TemplateError::Kind::kRaiseException: return "raise_exception";
    case TemplateError::Kind::kRuntime: return "runtime";
    case TemplateError::Kind::kBound: return "bound";
  }
  return "runtime";
}

Json input_error(const std::string& message) { return {{"error", {{"kind", "input"}, {"type", "UserError"}, {"message", message}}}}; }

// The assistant's spans of `text`; text may go on with a generation prompt.
std::vector<TextSpan> spans_of(const TemplateContext& context, const RenderMessages& render, const Json& messages,
                               const std::string& text) {
  const std::string without_prompt = render(messages, false);
  const auto specials = special_tokens_in(*context.tokenizer, without_prompt, context.tokenizer->encode(without_prompt, false));
  std::vector<TextSpan> spans;
  for (const AssistantTurn& turn : find_assistant_turns(render, messages, without_prompt, specials, end_tokens(*context.tokenizer))) {
    if (turn.rewritten || turn.unasked) {
      fail("template", "message {} (assistant): the template writes {} — see graft plan", turn.message + 1,
           turn.rewritten ? "it differently when later turns are added" : "the turns before it differently once the answer follows");
    }
    if (text.compare(0, turn.span.end, without_prompt, 0, turn.span.end) != 0) {
      fail("template", "message {} (assistant) is rewritten by the generation prompt — render it without", turn.message + 1);
    }
    spans.push_back(turn.span);
  }
  return tidy_spans(std::move(spans));
}

}  // namespace

Json render_line(const TemplateContext& context, const Json& line) {
  if (!context.chat_template) return input_error("the model has no chat template");
  if (!line.is_object() || !line.contains("messages") || !line["messages"].is_array()) {
    return input_error("expected an object with a list of messages");
  }
  const Json& messages = line["messages"];
  const bool add_generation_prompt = line.value("add_generation_prompt", Json(false)) == Json(true);
  const auto render = [&](const Json& some, bool prompt) {
    return context.chat_template->render(
        template_variables(context.tokenizer->special_tokens, context.arguments, line, some, prompt), context.now);
  };
  Json result = Json::object();
  try {
    const RenderedText rendered = render(messages, add_generation_prompt);
    const std::vector<int32_t> ids = context.tokenizer->encode(rendered.text, false);
    result["text"] = rendered.text;
    result["ids"] = ids;
    try {
      const auto spans = context.chat_template->has_generation_blocks()
                             ? tidy_spans(rendered.generation)
                             : spans_of(context, [&](const Json& some, bool prompt) { return render(some, prompt).text; }, messages,
                                        rendered.text);
      result["mask"] = mask_of(*context.tokenizer, rendered.text, ids, spans);
    } catch (const UserError& error) {
      result["mask"] = nullptr;
      result["mask_error"] = error.what();
    }
  } catch (const TemplateError& error) {
    result = {{"error", {{"kind", kind_name(error.kind)}, {"type", error.type}, {"message", error.message}}},
              {"where", fmt::format("{}, line {}", error.template_name, error.line)}};
  }
  return result;
}

}  // namespace graft
