#include <fstream>
#include <sstream>

#include "checkpoints/gguf_file.h"
#include "data/rows/utf8_text.h"
#include "data/templates/built_in_templates.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) fail("template", "expected a readable file, got {} — check the path and its permissions", path.string());
  return std::move(text).str();
}

std::shared_ptr<const ChatTemplate> make(std::string source, const std::string& name) {
  if (const auto offset = first_invalid_utf8(source)) {
    fail("template", "expected UTF-8, got an invalid byte at offset {} ({}) — save the template as UTF-8", *offset, name);
  }
  return std::make_shared<ChatTemplate>(std::move(source), name);
}

std::string named_default(const Json& list, const std::string& place) {
  std::string names;
  for (const Json& entry : list) {
    if (!entry.is_object() || !entry.contains("name") || !entry.contains("template") || !entry["template"].is_string()) {
      fail("template", "expected entries {{\"name\", \"template\"}} in the list chat_template, got {} ({}) — mend the file", entry.type_name(), place);
    }
    if (entry["name"] == "default") return entry["template"].get<std::string>();
    names += (names.empty() ? "" : ", ") + entry["name"].dump();
  }
  fail("template", "expected a chat template named \"default\", got {} ({}) — copy the one you want to a .jinja file and give it as data.template", names, place);
}

std::shared_ptr<const ChatTemplate> from_config(const fs::path& path) {
  const std::string place = path.filename().string();
  const Json config = Json::parse(read_file(path), nullptr, false);
  if (!config.is_object()) fail("template", "expected a JSON object, got something else ({}) — the file is damaged", place);
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return nullptr;
  if (found->is_string()) return make(found->get<std::string>(), "chat_template of " + place);
  if (found->is_array()) return make(named_default(*found, place), "chat_template \"default\" of " + place);
  fail("template", "expected chat_template to be text or a list of named templates, got {} ({}) — mend the file", found->type_name(), place);
}

}  // namespace

std::shared_ptr<const ChatTemplate> load_chat_template(const fs::path& model) {
  if (fs::is_directory(model)) {
    if (fs::exists(model / "chat_template.jinja")) {
      return make(read_file(model / "chat_template.jinja"), "chat_template.jinja");
    }
    if (fs::exists(model / "tokenizer_config.json")) {
      if (auto own = from_config(model / "tokenizer_config.json")) return own;
    }
    return built_in_template(model);
  }
  if (!fs::exists(model)) fail("template", "expected a model directory or a .gguf file, got {}, which does not exist — check the path", model.string());
  if (model.extension() != ".gguf") {
    fail("template", "expected a model directory or a .gguf file, got {} — give one of these", model.filename().string());
  }
  const GgufFile file(model);
  const auto source = file.get_string("tokenizer.chat_template");
  return source ? make(*source, "tokenizer.chat_template of " + model.filename().string()) : nullptr;
}

}  // namespace graft
