// The interpreter's own promises: bounds, the sandbox, errors with lines. What it renders is compared with jinja2 in compare_with_jinja2.py.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "data/templates/chat_template.h"
#include "data/templates/jinja/error.h"

namespace graft {
namespace {

using Json = nlohmann::ordered_json;
using testing::HasSubstr;

std::string render(const std::string& source, const Json& variables = Json::object(), int64_t now = 0) {
  return ChatTemplate(source, "test").render(variables, now).text;
}

TemplateError error_of(const std::string& source, const Json& variables = Json::object(), const RenderLimits& limits = {}) {
  try {
    const std::string text = ChatTemplate(source, "test").render(variables, 0, limits).text;
    ADD_FAILURE() << source << " rendered " << text.substr(0, 100);
  } catch (const TemplateError& error) {
    return error;
  }
  return TemplateError(TemplateError::Kind::kSyntax, "", "", "", 0, "");
}

void expect_bound(const std::string& source, const std::string& message) {
  const TemplateError error = error_of(source);
  EXPECT_EQ(error.kind, TemplateError::Kind::kBound) << source << ": " << error.what();
  EXPECT_THAT(error.message, HasSubstr(message)) << source;
}

TEST(Jinja, StopsAtItsBounds) {
  expect_bound("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "steps");
  expect_bound("{% for a in range(99999) %}{{ 'x' * 10000 }}{% endfor %}", "bytes of text");
  expect_bound("{{ 'x' * 99999999999 }}", "bytes of text");
  expect_bound("{% set ns = namespace(s='ab') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}", "bytes of text");
  expect_bound("{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = [ns.l] %}{% endfor %}", "nested");
  expect_bound("{% set ns = namespace(l=['x' * 1000000]) %}{% for i in range(999) %}{% set ns.l = ns.l + ['x' * 1000000 ~ i] %}{% endfor %}",
               "bytes of values");
  // Shared lists: small in memory, endless to print or compare.
  expect_bound("{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}", "");
  expect_bound("{% set ns = namespace(l=[1], m=[1]) %}{% for i in range(99) %}{% set ns.l = [ns.l, ns.l] %}{% set ns.m = [ns.m, ns.m] %}"
               "{% endfor %}{{ ns.l == ns.m }}", "steps");
  expect_bound("{% set ns = namespace(g=[1]) %}{% for i in range(999) %}{% set ns.g = ns.g | map('string') %}{% endfor %}", "nested");
}

TEST(Jinja, RecursionIsAnErrorNotACrash) {
  const TemplateError error = error_of("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}");
  EXPECT_EQ(error.type, "RecursionError");
  std::string deep = "{{ ";
  for (int i = 0; i < 5000; ++i) deep += "(";
  EXPECT_EQ(error_of(deep).kind, TemplateError::Kind::kSyntax);
  std::string chain = "{{ 1";
  for (int i = 0; i < 5000; ++i) chain += " + 1";
  EXPECT_EQ(error_of(chain + " }}").kind, TemplateError::Kind::kSyntax);
  std::string blocks;
  for (int i = 0; i < 5000; ++i) blocks += "{% if true %}";
  EXPECT_EQ(error_of(blocks).kind, TemplateError::Kind::kSyntax);
  Json nested = 1;
  for (int i = 0; i < 1000; ++i) nested = Json::array({nested});
  EXPECT_EQ(error_of("{{ x }}", {{"x", nested}}).kind, TemplateError::Kind::kBound);
  EXPECT_EQ(error_of("{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}").type, "RecursionError");
}

TEST(Jinja, LoopsThatRefuseToDieAreHarmless) {
  // A loop object kept beyond the macro whose test it would run.
  EXPECT_EQ(render("{% set ns = namespace() %}{% macro f(c) %}{% for x in [1, 2, 3] if x > c %}{% set ns.l = loop %}{% break %}{% endfor %}"
                   "{% endmacro %}{{ f(0) }}{{ ns.l.last }}"), "True");
  EXPECT_EQ(render("{% set ns = namespace() %}{% for x in 'ab' %}{% set ns.l = loop %}{% set ns.f = loop.cycle %}{% endfor %}"
                   "{{ ns.f('a', 'b') }}"), "b");
}

TEST(Jinja, TheSandboxRefusesWhatChangesValues) {
  EXPECT_EQ(error_of("{{ x.append(1) }}", {{"x", {1}}}).message, "access to attribute 'append' of 'list' object is unsafe.");
  EXPECT_EQ(error_of("{{ x.append(1) }}", {{"x", {1}}}).type, "SecurityError");
  EXPECT_EQ(error_of("{{ x.update(y=1) }}", {{"x", {{"k", 1}}}}).type, "SecurityError");
  EXPECT_EQ(error_of("{{ ''.__class__ + 'x' }}").type, "SecurityError");   // alone it prints nothing, as in jinja2
  EXPECT_EQ(error_of("{% set ns = namespace() %}{% set ns._x = 1 %}").type, "SecurityError");
  for (const char* tag : {"include 'x'", "import 'x' as y", "from 'x' import y", "extends 'x'", "block b", "autoescape true"}) {
    EXPECT_THAT(error_of(std::string("{% ") + tag + " %}").message, HasSubstr("not supported")) << tag;
  }
}

TEST(Jinja, ErrorsNameTemplateAndLine) {
  const TemplateError syntax = error_of("a\n{% if x %}\nb");
  EXPECT_EQ(syntax.kind, TemplateError::Kind::kSyntax);
  EXPECT_EQ(syntax.line, 3);
  EXPECT_THAT(syntax.what(), HasSubstr("[graft.template] test, line 3: "));
  const TemplateError runtime = error_of("a\n{{ 'x'\n + 1 }}");
  EXPECT_EQ(runtime.line, 3);
  EXPECT_THAT(runtime.what(), HasSubstr("TypeError: can only concatenate str (not \"int\") to str"));
  const TemplateError raised = error_of("\n\n\n{{ raise_exception('roles: ' ~ 3) }}");
  EXPECT_EQ(raised.kind, TemplateError::Kind::kRaiseException);
  EXPECT_EQ(raised.message, "roles: 3");
  EXPECT_EQ(raised.line, 4);
}

TEST(Jinja, UnknownFiltersFailWhereJinjaFails) {
  EXPECT_EQ(error_of("{{ 1 | nosuch }}").kind, TemplateError::Kind::kSyntax);
  EXPECT_EQ(render("{% if false %}{{ 1 | from_json }}{% endif %}ok"), "ok");
  EXPECT_EQ(error_of("{% if true %}{{ 1 | from_json }}{% endif %}").message, "No filter named 'from_json' found.");
  EXPECT_EQ(render("{{ 1 if true else 1 is nosuch }}"), "1");
  // Known to jinja2, not to graft: said so, never rendered wrongly.
  EXPECT_THAT(error_of("{{ 'x' | urlencode }}").message, HasSubstr("not supported by graft"));
}

TEST(Jinja, TellsTheTimeItIsGiven) {
  EXPECT_EQ(render("{{ strftime_now('%Y-%m-%d %d %b %Y %B %d, %Y %A %H:%M:%S %-d %y %j %%') }}", Json::object(), 1772701623),
            "2026-03-05 05 Mar 2026 March 05, 2026 Thursday 09:07:03 5 26 064 %");
}

TEST(Jinja, NumbersAreExact) {
  EXPECT_EQ(render("{{ x }} {{ x + 1 }} {{ x * 4 }}", {{"x", 18446744073709551615ull}}),
            "18446744073709551615 18446744073709551616 73786976294838206460");
  EXPECT_EQ(error_of("{{ x * x }}", {{"x", 18446744073709551615ull}}).type, "OverflowError");
  EXPECT_EQ(error_of("{{ 2 ** 127 }}").type, "OverflowError");
  EXPECT_EQ(render("{{ [1e16, 1e-5, 0.1, 1.0, 123456789.125, -0.0, 5e-324, 1e22] }}"),
            "[1e+16, 1e-05, 0.1, 1.0, 123456789.125, -0.0, 5e-324, 1e+22]");
  EXPECT_EQ(render("{{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ -7.5 // 2 }}"), "-4 2 3.5 1024 -4.0");
}

TEST(Jinja, RendersFromSeveralThreadsAtOnce) {
  const ChatTemplate parsed("{% for m in messages %}{{ m.role ~ ': ' ~ m.content | trim }}\n{% endfor %}", "test");
  const Json variables = {{"messages", Json::array({{{"role", "user"}, {"content", " hi "}}})}};
  std::vector<std::string> texts(4);
  {
    std::vector<std::jthread> threads;
    for (std::string& text : texts) {
      threads.emplace_back([&] {
        for (int i = 0; i < 100; ++i) text = parsed.render(variables, 0).text;
      });
    }
  }
  EXPECT_THAT(texts, testing::Each("user: hi\n"));
  EXPECT_EQ(parsed.fingerprint().size(), 64u);
  EXPECT_FALSE(parsed.has_generation_blocks());
}

}  // namespace
}  // namespace graft
