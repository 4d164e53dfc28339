#include "data/templates/rendered_row.h"

#include <algorithm>
#include <optional>

#include "data/templates/jinja/error.h"
#include "data/templates/message_forms.h"
#include "data/templates/template_variables.h"

namespace graft {

using Json = nlohmann::ordered_json;

RenderedRow::RenderedRow(const TemplateContext& context, const Json& row, bool add_generation_prompt) : context_(context), row_(row) {
  if (!context.chat_template) {
    fail("template", "expected a model with a chat template, got one without — give a .jinja file as data.template, or rows of format text");
  }
  const auto messages = row.find("messages");
  check_roles(messages == row.end() ? Json() : *messages, context.chat_template->name());
  std::optional<TemplateError> first_error;
  for (Json& form : message_forms(*messages)) {
    try {
      rendered_ = render(form, add_generation_prompt);
      messages_ = std::move(form);
      return;
    } catch (const TemplateError& error) {
      if (!first_error) {
        first_error.emplace(error);
        messages_ = form;
      }
      if (error.kind == TemplateError::Kind::kBound) break;
    }
  }
  blame(*first_error);
}

RenderedText RenderedRow::render(const Json& messages, bool add_generation_prompt) const {
  return context_.chat_template->render(
      template_variables(context_.tokenizer->special_tokens, context_.arguments, row_, messages, add_generation_prompt), context_.now);
}

RenderMessages RenderedRow::renderer() const {
  return [this](const Json& messages, bool add_generation_prompt) { return render(messages, add_generation_prompt).text; };
}

// The message to name is the one with which the same error first appears.
void RenderedRow::blame(const TemplateError& error) const {
  size_t culprit = messages_.size();
  for (size_t count = 1; count < messages_.size() && culprit == messages_.size() && messages_.size() <= 64; ++count) {
    try {
      render(Json(messages_.begin(), messages_.begin() + static_cast<std::ptrdiff_t>(count)), false);
    } catch (const TemplateError& other) {
      if (other.message == error.message && other.line == error.line) culprit = count;
    }
  }
  const Json& message = messages_[culprit - 1];
  fail("template", "{}, line {}: message {} ({}): {}: {} — {}", error.template_name, error.line, culprit,
       message.at("role").get_ref<const std::string&>(), error.type, error.message,
       error.kind == TemplateError::Kind::kRaiseException ? "the template refuses this conversation; change the row, or data.template"
       : error.kind == TemplateError::Kind::kBound        ? "shorten the row, or look whether the template loops without end"
                                                          : "the template does not take messages of this form; change the row, or data.template");
}

std::vector<TextSpan> tidy_spans(std::vector<TextSpan> spans) {
  std::sort(spans.begin(), spans.end(), [](const TextSpan& a, const TextSpan& b) { return a.begin < b.begin; });
  std::vector<TextSpan> result;
  for (TextSpan span : spans) {
    if (!result.empty()) span.begin = std::max(span.begin, result.back().end);
    if (span.begin < span.end) result.push_back(span);
  }
  return result;
}

}  // namespace graft
