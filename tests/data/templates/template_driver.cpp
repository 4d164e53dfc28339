// Renders templates for the comparison with jinja2: one {"template", "variables", "now"} per line of stdin, one result per line of stdout.
#include <iostream>
#include <string>

#include "data/templates/chat_template.h"
#include "data/templates/jinja/error.h"
#include "tests/data/templates/golden_templates.h"

namespace {

using graft::golden::Json;

const char* kind_name(graft::TemplateError::Kind kind) {
  switch (kind) {
    case graft::TemplateError::Kind::kSyntax: return "syntax";
    case graft::TemplateError::Kind::kRaiseException: return "raise_exception";
    case graft::TemplateError::Kind::kRuntime: return "runtime";
    case graft::TemplateError::Kind::kBound: return "bound";
  }
  return "?";
}

Json run(const Json& request) {
  try {
    const graft::ChatTemplate parsed(request.at("template").get<std::string>(), "test");
    const graft::RenderedText rendered = parsed.render(request.at("variables"), request.at("now").get<int64_t>());
    Json spans = Json::array();
    for (const auto& span : rendered.generation) {
      spans.push_back({graft::golden::code_points_before(rendered.text, span.begin),
                       graft::golden::code_points_before(rendered.text, span.end)});
    }
    return {{"text", rendered.text}, {"generation", spans}};
  } catch (const graft::TemplateError& error) {
    return {{"error", {{"kind", kind_name(error.kind)}, {"type", error.type}, {"message", error.message}, {"line", error.line}}}};
  }
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << run(Json::parse(line)).dump(-1, ' ', true, Json::error_handler_t::replace) << '\n';
  }
}
