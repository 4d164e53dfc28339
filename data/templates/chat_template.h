// Jinja chat templates, rendered as transformers 5 does (ImmutableSandboxedEnvironment, trim_blocks, lstrip_blocks, loopcontrols,
// generation tag), by an interpreter that can only read its input: no attribute escapes, bounded steps, depth and output.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "data/templates/rendered_text.h"

namespace graft {

class ChatTemplate {
 public:
  // name: shown in errors ("tokenizer.chat_template of model.gguf"). Throws TemplateError (jinja/error.h, a UserError) on a syntax
  // error (line, what was expected).
  ChatTemplate(std::string source, std::string name);
  ~ChatTemplate();
  // variables: messages, tools, documents, add_generation_prompt, special tokens, template arguments. strftime_now reads `now`
  // (unix seconds, UTC). Throws TemplateError: raise_exception's text, a run-time error with template line, or an exceeded bound.
  // May be called from several threads at once.
  RenderedText render(const nlohmann::ordered_json& variables, int64_t now, const RenderLimits& limits = {}) const;
  bool has_generation_blocks() const;
  const std::string& source() const;
  const std::string& name() const;
  std::string fingerprint() const;   // SHA-256 (hex) of the source

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The template of a model: chat_template.jinja, else tokenizer_config.json's chat_template (a string, or the one named "default" of a
// list), else a built-in one (built_in_templates.h); of a GGUF file tokenizer.chat_template. Null when the model has none.
std::shared_ptr<const ChatTemplate> load_chat_template(const std::filesystem::path& model);

}  // namespace graft
