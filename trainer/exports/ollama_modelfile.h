// A Modelfile for `ollama create`: the GGUF file, when its model stops, and its chat template in Go's form. Ollama reads no Jinja: without a TEMPLATE it takes
// the one of its own list that looks most alike, or none. Source: github.com/ollama/ollama, docs/modelfile.md and template/template.go.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "checkpoints/gguf_file.h"
#include "data/templates/chat_template.h"
#include "trainer/exports/export_source.h"

namespace graft {

struct GoTemplate {
  std::string text;                       // empty: Go cannot write what the chat template does
  std::string problem;                    // why not, in words; else empty
  std::vector<std::string> differences;   // what it writes otherwise, in words
};

// Of templates that write messages one after another with a text between that depends on their two roles alone (system, user, assistant). Found by rendering
// conversations: nothing of the Jinja is read. bos: the text with which the engine begins by itself; empty: none.
GoTemplate go_template(const ChatTemplate& chat_template, const nlohmann::ordered_json& special_tokens, const std::string& bos);

// The Modelfile beside `model`, or why there is none. `metadata`: the file's.
struct Modelfile {
  std::string text;      // empty: none
  std::string problem;   // why not; empty where the model has no chat template or no tokenizer
};
Modelfile ollama_modelfile(const ExportSource& source, const std::vector<GgufEntry>& metadata, const std::filesystem::path& model);

}  // namespace graft
