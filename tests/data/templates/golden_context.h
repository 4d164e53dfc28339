// A golden template with a byte-level tokenizer that knows the special tokens which the template writes.
#pragma once
#include <memory>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "data/templates/conversation.h"
#include "tests/data/templates/golden_templates.h"
#include "tests/data/templates/special_token_tokenizer.h"

namespace graft::golden {

inline std::set<std::string> special_tokens_of(const Template& golden) {
  static const std::regex pattern(
      "<\\|[^|<>\n ]*\\|>|<｜[^<> \n]*｜>|<(end|start)_of_turn>|\\[/?[A-Z_]{4,}\\]|<s>|</s>|<sop>|\\[e~\\[|\\]~b\\]|<[A-Z_|]+TOKEN[|]?>|"
      "<seed:[a-z]+>|\\[\\|[a-z]+\\|\\]");
  std::set<std::string> found;
  for (const auto& [name, token] : golden.special_tokens.items()) found.insert(token.get<std::string>());
  for (auto it = std::sregex_iterator(golden.source.begin(), golden.source.end(), pattern); it != std::sregex_iterator(); ++it) {
    found.insert(it->str());
  }
  return found;
}

inline TemplateContext context_of(const Template& golden) {
  const auto specials = special_tokens_of(golden);
  auto tokenizer = std::make_shared<test::SpecialTokenTokenizer>(std::vector<std::string>(specials.begin(), specials.end()));
  tokenizer->special_tokens = golden.special_tokens;
  if (golden.special_tokens.contains("eos_token")) {
    tokenizer->eos_id = tokenizer->token_id(golden.special_tokens["eos_token"].get_ref<const std::string&>());
  }
  if (golden.name.starts_with("glm")) {  // as generation_config.json of GLM names them
    for (const char* token : {"<|user|>", "<|observation|>"}) {
      if (const auto id = tokenizer->token_id(token)) tokenizer->stop_ids.push_back(*id);
    }
  }
  return {tokenizer, std::make_shared<ChatTemplate>(golden.source, golden.name), Json::object(), kClock};
}

// The supervised parts of the text, one string for each run of supervised tokens.
inline std::vector<std::string> supervised_parts(const TemplateContext& context, const EncodedText& encoded) {
  std::vector<std::string> parts;
  for (size_t i = 0; i < encoded.ids.size(); ++i) {
    if (!encoded.supervised[i]) continue;
    if (i == 0 || !encoded.supervised[i - 1]) parts.emplace_back();
    parts.back() += context.tokenizer->token_bytes(encoded.ids[i]);
  }
  return parts;
}

}  // namespace graft::golden
