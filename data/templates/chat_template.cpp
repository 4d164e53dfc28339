#include "data/templates/chat_template.h"

#include "checkpoints/hash.h"
#include "data/templates/jinja/check_names.h"
#include "data/templates/jinja/error.h"
#include "data/templates/jinja/parser.h"
#include "data/templates/jinja/renderer.h"
#include "data/templates/jinja/scopes.h"

namespace graft {

using Kind = TemplateError::Kind;

struct ChatTemplate::Impl {
  std::string source, name;
  jinja::Template parsed;

  [[noreturn]] void fail_at(Kind kind, const std::string& type, const std::string& message, int line, const std::string& advice) const {
    throw TemplateError(kind, type, message, name, line,
                        fmt::format("{}, line {}: {}: {} — {}", name, line, type, message, advice));
  }
};

ChatTemplate::ChatTemplate(std::string source, std::string name) : impl_(std::make_unique<Impl>()) {
  impl_->source = std::move(source);
  impl_->name = std::move(name);
  try {
    impl_->parsed = jinja::Parser(impl_->source).parse();
    jinja::check_names(impl_->parsed);
    jinja::resolve_scopes(impl_->parsed);
  } catch (const jinja::SyntaxError& error) {
    impl_->fail_at(Kind::kSyntax, "TemplateSyntaxError", error.message, error.line, "correct the template, or give another with data.template");
  }
}

ChatTemplate::~ChatTemplate() = default;

RenderedText ChatTemplate::render(const nlohmann::ordered_json& variables, int64_t now, const RenderLimits& limits) const {
  jinja::Renderer renderer(impl_->parsed, variables, now, limits);
  try {
    return renderer.run();
  } catch (const jinja::PythonError& error) {
    impl_->fail_at(Kind::kRuntime, error.type, error.message, renderer.line(),
                   "the template does not accept this conversation; transformers reports the same");
  } catch (const jinja::RaisedException& error) {
    impl_->fail_at(Kind::kRaiseException, "TemplateError", error.message, renderer.line(), "the template refuses this conversation");
  } catch (const jinja::BoundExceeded& error) {
    impl_->fail_at(Kind::kBound, "BoundExceeded", error.message, renderer.line(),
                   "shorten the conversation, or look whether the template loops without end");
  }
}

bool ChatTemplate::has_generation_blocks() const { return impl_->parsed.has_generation; }
const std::string& ChatTemplate::source() const { return impl_->source; }
const std::string& ChatTemplate::name() const { return impl_->name; }
std::string ChatTemplate::fingerprint() const { return sha256(impl_->source); }

}  // namespace graft
