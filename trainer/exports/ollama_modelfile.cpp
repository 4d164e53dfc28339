#include "trainer/exports/ollama_modelfile.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "data/templates/template_variables.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

using Json = nlohmann::ordered_json;
constexpr int64_t kOneDay = 1772701623, kAnother = kOneDay + 400 * 86400;   // a template that writes the date shows it
constexpr int64_t kMostContext = 8192;   // tokens; Ollama keeps room for all of them

// The texts between the messages of a conversation, by the roles before and after; "" at its ends.
using Between = std::map<std::pair<std::string, std::string>, std::string>;

class Prober {
 public:
  Prober(const ChatTemplate& chat_template, const Json& special_tokens) : template_(chat_template), special_tokens_(special_tokens) {}

  std::string render(const Json& messages, int64_t now = kOneDay) const {
    return template_.render(template_variables(special_tokens_, Json::object(), Json::object(), messages, true), now).text;
  }

  // Adds what stands between messages of these roles; says what is wrong, or nothing.
  std::string probe(const std::vector<std::string>& roles, Between& between) const {
    Json messages = Json::array();
    for (size_t i = 0; i < roles.size(); ++i) messages.push_back({{"role", roles[i]}, {"content", fmt::format("Qmessage{}Q", i)}});
    const auto text = render(messages);
    if (text != render(messages, kAnother)) return "it writes the date";
    std::string before;
    size_t at = 0;
    for (size_t i = 0; i <= roles.size(); ++i) {
      const std::string content = i < roles.size() ? messages[i].at("content").get<std::string>() : "", role = i < roles.size() ? roles[i] : "";
      const size_t found = i < roles.size() ? text.find(content, at) : text.size();
      if (found == std::string::npos) return fmt::format("it leaves out or moves the {} message", role);
      const auto piece = text.substr(at, found - at);
      const auto [place, is_new] = between.try_emplace({before, role}, piece);
      if (!is_new && place->second != piece) return fmt::format("what it writes between messages depends on more than their roles ({:?} and {:?})", place->second, piece);
      before = role;
      at = found + content.size();
    }
    return {};
  }

 private:
  const ChatTemplate& template_;
  const Json& special_tokens_;
};

// A text as a Go action; nothing for none.
std::string action(const std::string& text) {
  if (text.empty()) return {};
  std::string quoted;
  for (const char c : text) {
    switch (c) {
      case '"': quoted += "\\\""; break;
      case '\\': quoted += "\\\\"; break;
      case '\n': quoted += "\\n"; break;
      case '\t': quoted += "\\t"; break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) quoted += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
        else quoted += c;
    }
  }
  return "{{ \"" + quoted + "\" }}";
}

// What is written before a message of `role`, by the role of the message before it.
std::string before_role(const Between& between, const std::string& role) {
  std::string text;
  for (const auto& [roles, piece] : between) {
    if (roles.second != role || piece.empty()) continue;
    text += fmt::format("{{{{ {}if eq $last \"{}\" }}}}{}", text.empty() ? "" : "else ", roles.first, action(piece));
  }
  return text.empty() ? text : text + "{{ end }}";
}

std::string join_roles(const Between& between) {
  std::string text = "{{- $last := \"\" }}{{ range .Messages }}";
  const char* keyword = "if";
  for (const char* role : {"system", "user", "assistant"}) {
    const bool known = std::any_of(between.begin(), between.end(), [&](const auto& entry) { return entry.first.second == role; });
    if (!known) continue;
    text += fmt::format("\n{{{{- {} eq .Role \"{}\" }}}}{}{{{{ .Content }}}}{{{{ $last = \"{}\" }}}}", keyword, role, before_role(between, role), role);
    keyword = "else if";
  }
  return text + "\n{{- end }}{{ end }}{{ if eq $last \"user\" }}" + action(between.at({"user", ""})) + "{{ end }}";
}

// The text that llama.cpp's engine puts before every prompt: sentencepiece models have it unless they say otherwise, others where they say so.
std::string text_at_start(const ExportSource& source, const std::vector<GgufEntry>& metadata) {
  if (!source.tokenizer->bos_id) return {};
  const auto* adds = find_entry(metadata, "tokenizer.ggml.add_bos_token");
  const auto* model = find_entry(metadata, "tokenizer.ggml.model");
  const auto* flag = adds ? std::get_if<bool>(&adds->value) : nullptr;
  const auto* name = model ? std::get_if<std::string>(&model->value) : nullptr;
  const bool begins = flag ? *flag : name && *name == "llama";
  return begins ? source.tokenizer->token_bytes(*source.tokenizer->bos_id) : "";
}

std::vector<std::string> stop_texts(const Tokenizer& tokenizer) {
  std::vector<std::string> texts;
  for (const int32_t id : end_tokens(tokenizer)) texts.push_back(tokenizer.token_bytes(id));
  return texts;
}

}  // namespace

GoTemplate go_template(const ChatTemplate& chat_template, const Json& special_tokens, const std::string& bos) {
  GoTemplate result;
  Between between;
  const Prober prober(chat_template, special_tokens);
  try {
    for (const std::vector<std::string>& roles : std::vector<std::vector<std::string>>{{"user"}, {"user", "assistant", "user"}, {"user", "assistant", "user", "assistant", "user"}}) {
      if (result.problem = prober.probe(roles, between); !result.problem.empty()) return result;
    }
    Between with_system = between;
    try {
      for (const std::vector<std::string>& roles : std::vector<std::vector<std::string>>{{"system", "user"}, {"system", "user", "assistant", "user"}}) {
        if (result.problem = prober.probe(roles, with_system); !result.problem.empty()) return result;
      }
      between = std::move(with_system);
    } catch (const UserError&) {
      result.differences.push_back("system messages, which the template refuses, are left out");
    }
    if (const std::string padded = " \nQmessage\n "; prober.render({{{"role", "user"}, {"content", padded}}}).find(padded) == std::string::npos)
      result.differences.push_back("white space around a message, which the template takes away, stays");
  } catch (const UserError& error) {
    result.problem = fmt::format("it refuses a plain conversation: {}", error.what());
    return result;
  }
  if (chat_template.source().find("tools") != std::string::npos) result.differences.push_back("tools are not passed on");
  for (auto& [roles, piece] : between) {
    if (roles.first.empty() && !bos.empty() && piece.starts_with(bos)) piece.erase(0, bos.size());
  }
  result.text = join_roles(between);
  return result;
}

Modelfile ollama_modelfile(const ExportSource& source, const std::vector<GgufEntry>& metadata, const std::filesystem::path& model) {
  if (!source.chat_template || !source.tokenizer) return {};
  const auto converted = go_template(*source.chat_template, source.tokenizer->special_tokens, text_at_start(source, metadata));
  if (converted.text.empty()) return {{}, converted.problem};
  std::string text = fmt::format("# ollama create NAME -f {}.Modelfile\n", model.stem().string());
  text += "# TEMPLATE is the model's chat template in Go's form, found by rendering conversations with it.\n";
  for (const auto& difference : converted.differences) text += fmt::format("# Otherwise than there: {}.\n", difference);
  text += fmt::format("FROM ./{}\nTEMPLATE \"\"\"{}\"\"\"\n", model.filename().string(), converted.text);
  for (const auto& stop : stop_texts(*source.tokenizer)) text += fmt::format("PARAMETER stop {:?}\n", stop);
  text += "# The likeliest token each time, as in the certificate (Ollama's own default samples and punishes repetition), and the tokens of a prompt and its answer.\n";
  text += fmt::format("PARAMETER temperature 0\nPARAMETER repeat_penalty 1\nPARAMETER num_ctx {}\n", std::min(kMostContext, source.spec->max_positions));
  if (source.base_licence != "unknown") text += fmt::format("LICENSE \"\"\"{}\"\"\"\n", source.base_licence);
  return {text, {}};
}

}  // namespace graft
