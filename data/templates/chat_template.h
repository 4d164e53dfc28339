// Jinja chat templates, rendered as transformers 5 does (ImmutableSandboxedEnvironment, trim_blocks, lstrip_blocks, loopcontrols,
// generation tag), by an interpreter that can only read its input: no attribute escapes, bounded steps, depth and output.
#pragma once
#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace graft {

struct TextSpan { size_t begin = 0, end = 0; };   // byte offsets into the UTF-8 text, half-open

struct RenderedText {
  std::string text;
  std::vector<TextSpan> generation;   // what {% generation %} blocks wrote; empty when the template has none
};

class ChatTemplate {
 public:
  // name: shown in errors ("tokenizer.chat_template of model.gguf"). Throws UserError on a syntax error (line, what was expected).
  ChatTemplate(std::string source, std::string name);
  ~ChatTemplate();
  // variables: messages, tools, documents, add_generation_prompt, special tokens, template arguments. strftime_now reads `now`
  // (unix seconds, UTC). Throws UserError: raise_exception's text, a run-time error with template line, or an exceeded bound.
  RenderedText render(const nlohmann::ordered_json& variables, int64_t now) const;
  bool has_generation_blocks() const;
  const std::string& source() const;
  const std::string& name() const;
  std::string fingerprint() const;   // SHA-256 (hex) of the source

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The template of a model: chat_template.jinja, else tokenizer_config.json's chat_template, else GGUF tokenizer.chat_template.
// Null when the model has none.
std::shared_ptr<const ChatTemplate> load_chat_template(const std::filesystem::path& model);

}  // namespace graft
