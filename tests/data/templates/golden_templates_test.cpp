// Every real template renders every golden conversation as transformers does: the same text, spans and errors.
#include <gtest/gtest.h>

#include "data/templates/chat_template.h"
#include "data/templates/jinja/error.h"
#include "data/templates/template_variables.h"
#include "tests/data/templates/golden_templates.h"

namespace graft {
namespace {

using golden::Json;

void expect_error(const TemplateError& error, const Json& expected) {
  const std::string kind = error.kind == TemplateError::Kind::kRaiseException ? "raise_exception" : "runtime";
  EXPECT_EQ(kind, expected.at("kind"));
  EXPECT_EQ(error.type, expected.at("type"));
  EXPECT_EQ(error.message, expected.at("message"));
  EXPECT_GT(error.line, 0);
}

void expect_text(const RenderedText& rendered, const Json& expected) {
  EXPECT_EQ(rendered.text, expected.at("text").get<std::string>());
  Json spans = Json::array();
  for (const TextSpan& span : rendered.generation) {
    spans.push_back({golden::code_points_before(rendered.text, span.begin), golden::code_points_before(rendered.text, span.end)});
  }
  EXPECT_EQ(spans, expected.value("generation", Json::array()));
}

class GoldenTemplate : public testing::TestWithParam<std::string> {};

TEST_P(GoldenTemplate, RendersAsTransformers) {
  const golden::Template golden = golden::load(GetParam());
  const ChatTemplate parsed(golden.source, golden.name);
  ASSERT_EQ(golden.cases.size(), 16u);
  for (const golden::Case& item : golden.cases) {
    SCOPED_TRACE(item.id);
    const Json variables = template_variables(golden.special_tokens, Json::object(), item.conversation,
                                              item.conversation.at("messages"), item.conversation.at("add_generation_prompt"));
    try {
      const RenderedText rendered = parsed.render(variables, golden::kClock);
      ASSERT_TRUE(item.expected.contains("text")) << "rendered, but transformers says " << item.expected.at("error");
      expect_text(rendered, item.expected);
    } catch (const TemplateError& error) {
      ASSERT_TRUE(item.expected.contains("error")) << error.what();
      expect_error(error, item.expected.at("error"));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTemplate, testing::ValuesIn(golden::names()), golden::test_name);

TEST(GoldenTemplates, AreAllThere) { EXPECT_EQ(golden::names().size(), 66u); }

}  // namespace
}  // namespace graft
