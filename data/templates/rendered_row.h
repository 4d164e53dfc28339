// A row rendered in the form of messages that its template takes, for encoding.
#pragma once
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "data/templates/assistant_spans.h"
#include "data/templates/conversation.h"

namespace graft {

class RenderedRow {
 public:
  // Checks the roles and renders. Throws UserError that names template, message and reason.
  RenderedRow(const TemplateContext& context, const nlohmann::ordered_json& row, bool add_generation_prompt);

  const nlohmann::ordered_json& messages() const { return messages_; }
  const std::string& text() const { return rendered_.text; }
  const std::vector<TextSpan>& generation() const { return rendered_.generation; }
  RenderMessages renderer() const;  // of other messages of the same row; *this must outlive it

 private:
  RenderedText render(const nlohmann::ordered_json& messages, bool add_generation_prompt) const;
  [[noreturn]] void blame(const class TemplateError& error) const;

  const TemplateContext& context_;
  const nlohmann::ordered_json& row_;
  nlohmann::ordered_json messages_;
  RenderedText rendered_;
};

// Sorted and made disjoint; empty spans dropped.
std::vector<TextSpan> tidy_spans(std::vector<TextSpan> spans);

}  // namespace graft
