#include "trainer/models/families/licences.h"

#include <algorithm>
#include <cctype>

#include <fmt/format.h>

namespace graft {
namespace {

constexpr std::string_view kApache = "the LICENSE file of this project, SHA-256 cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30";

constexpr LicenceTerms kTable[] = {
    {"apache-2.0", "Apache License 2.0", "qwen2, qwen3, qwen3_moe, qwen3_next, qwen3_5_text, qwen3_5_moe_text, mistral, mixtral, smollm3, ernie4_5, ernie4_5_moe, olmo2, gpt_oss", true, "", "no", "", "keep licence and NOTICE", kApache},
    {"mit", "MIT License", "phi3, glm4, glm4_moe, glm4_moe_lite, deepseek_v3 (from 0324 on), deepseek_v32, glm_moe_dsa (GLM-5; 5.3 has a text of its own), R1 distillations, kimi_linear, gpt2", true, "", "no", "", "keep the copyright line", "unverified"},
    {"bsd-3-clause", "BSD 3-Clause License", "", true, "", "no", "", "keep the copyright line", "unverified"},
    {"cc-by-4.0", "Creative Commons Attribution 4.0", "", true, "", "unverified", "", "name the authors", "unverified"},
    {"cc-by-nc-4.0", "Creative Commons Attribution-NonCommercial 4.0", "", false, "non-commercial", "unverified", "", "name the authors", "unverified"},
    {"llama2", "Llama 2 Community License", "llama", true, "above 700 M monthly users by agreement; outputs may not train other models", "yes", "", "keep the NOTICE", "unverified"},
    {"llama3", "Llama 3 Community License", "llama", true, "above 700 M monthly users by agreement", "yes", "", "names begin with Llama 3; \"Built with Meta Llama 3\"", "unverified"},
    {"llama3.1", "Llama 3.1 Community License", "llama", true, "above 700 M monthly users by agreement", "yes", "", "names begin with Llama; \"Built with Llama\"", "unverified"},
    {"llama3.2", "Llama 3.2 Community License", "llama", true, "above 700 M monthly users by agreement", "yes", "", "names begin with Llama; \"Built with Llama\"", "unverified"},
    {"llama3.3", "Llama 3.3 Community License", "llama", true, "above 700 M monthly users by agreement", "yes", "", "names begin with Llama; \"Built with Llama\"", "unverified"},
    {"gemma", "Gemma Terms of Use", "gemma2, gemma3_text", true, "prohibited uses", "yes", "", "pass terms and NOTICE on", "unverified"},
    {"qwen-research", "Qwen Research License", "qwen2 (2.5 of 3B)", false, "research only", "unverified", "", "", "unverified"},
    {"qwen", "Qwen (Tongyi Qianwen) License", "qwen2 (72B), qwen2_moe", true, "above 100 M monthly users by agreement", "unverified", "", "\"Built with Qwen\"", "unverified"},
    {"deepseek", "DeepSeek Model License", "deepseek_v2, deepseek_v3 (first release)", true, "use restrictions pass to derivatives", "yes", "", "", "unverified"},
    {"glm-4", "GLM-4 License", "chatglm, glm", true, "commercial use by registration", "unverified", "", "", "unverified"},
    {"chatglm", "ChatGLM Model License", "chatglm", true, "commercial use by registration", "unverified", "", "", "unverified"},
    {"modified-mit", "Modified MIT License (Kimi)", "kimi_k2", true, "above 100 M users or 20 M USD a month its name must be shown", "no", "", "keep the copyright line", "unverified"},
    {"bigscience-bloom-rail-1.0", "BigScience RAIL License 1.0", "bloom", true, "use restrictions pass to derivatives", "yes", "", "", "unverified"},
    {"tencent-hunyuan-community", "Tencent Hunyuan Community License", "hunyuan_v1_dense, hunyuan_v1_moe", true, "above 100 M monthly users by agreement", "yes",
     "the European Union, the United Kingdom, South Korea", "\"Powered by Tencent Hunyuan\"", "unverified"},
    {"openpangu-1.0", "openPangu Model License 1.0", "PanguEmbedded", true, "", "yes", "the European Union", "\"Powered by openPangu\"", "unverified"},
    {"openrail", "OpenRAIL License", "", true, "use restrictions pass to derivatives", "yes", "", "", "unverified"},
};

// Titles of licence texts and other spellings, in lower case; the first that is found counts, so the longer ones come first.
constexpr std::pair<std::string_view, std::string_view> kSpellings[] = {
    {"apache license", "apache-2.0"},
    {"apache 2.0", "apache-2.0"},
    {"modified mit", "modified-mit"},
    {"mit license", "mit"},
    {"permission is hereby granted, free of charge", "mit"},
    {"llama 3.3", "llama3.3"},
    {"llama 3.2", "llama3.2"},
    {"llama 3.1", "llama3.1"},
    {"llama 3", "llama3"},
    {"llama 2", "llama2"},
    {"gemma terms", "gemma"},
    {"qwen research", "qwen-research"},
    {"tongyi qianwen", "qwen"},
    {"qwen license", "qwen"},
    {"deepseek", "deepseek"},
    {"glm-4", "glm-4"},
    {"chatglm", "chatglm"},
    {"bigscience", "bigscience-bloom-rail-1.0"},
    {"hunyuan", "tencent-hunyuan-community"},
    {"openpangu", "openpangu-1.0"},
    {"noncommercial", "cc-by-nc-4.0"},
};

std::string lower_case(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const auto begin = lower.find_first_not_of(" \t\"'#"), end = lower.find_last_not_of(" \t\r\n\"'");
  return begin == std::string::npos ? "" : lower.substr(begin, end - begin + 1);
}

const LicenceTerms* by_identifier(std::string_view identifier) {
  const auto it = std::find_if(std::begin(kTable), std::end(kTable), [&](const LicenceTerms& terms) { return terms.identifier == identifier; });
  return it == std::end(kTable) ? nullptr : it;
}

}  // namespace

std::span<const LicenceTerms> licence_table() { return kTable; }

const LicenceTerms* find_licence(std::string_view declared) {
  const auto text = lower_case(declared);
  if (const auto* terms = by_identifier(text)) return terms;
  for (const auto& [spelling, identifier] : kSpellings) {
    if (text.find(spelling) != std::string::npos) return by_identifier(identifier);
  }
  return nullptr;
}

LicenceFinding check_licence(const std::vector<std::string>& declared, const std::vector<std::string>& accepted) {
  LicenceFinding finding;
  const LicenceTerms* terms = nullptr;
  std::string said;
  for (const auto& text : declared) {
    if (text.empty() || lower_case(text) == "unknown" || lower_case(text) == "other") continue;
    const auto* found = find_licence(text);
    if (said.empty()) {
      terms = found;
      said = text;
    } else if (found != terms) {
      finding.notes.push_back(fmt::format("the licence contradicts itself: \"{}\" and \"{}\"; the first counts", said, text));
    }
  }
  finding.identifier = terms ? std::string(terms->identifier) : "unknown";
  if (!terms) {
    finding.problem = said.empty() ? "the base declares no licence" : fmt::format("the base declares a licence that graft does not know: \"{}\"", said);
  } else {
    if (!terms->commercial) finding.problem = fmt::format("the base's licence is not for commercial use ({}: {})", terms->name, terms->commercial_conditions);
    if (!terms->territory.empty()) finding.problem = fmt::format("the base's licence excludes {} ({})", terms->territory, terms->name);
    if (terms->commercial && !terms->commercial_conditions.empty()) finding.notes.push_back(fmt::format("licence {}: {}", terms->identifier, terms->commercial_conditions));
    if (!terms->naming.empty() && terms->identifier != "apache-2.0" && terms->identifier != "mit") finding.notes.push_back(fmt::format("licence {}: {}", terms->identifier, terms->naming));
  }
  if (finding.problem.empty()) return finding;
  if (std::find(accepted.begin(), accepted.end(), finding.identifier) != accepted.end()) {
    finding.notes.push_back(fmt::format("accepted by the recipe: {}", finding.problem));
    finding.problem.clear();
  } else {
    finding.problem += fmt::format(" — read its text, and if you may use it write accept_licence: {} in the recipe; the manifest records it", finding.identifier);
  }
  return finding;
}

std::string licence_markdown() {
  std::string text =
      "# Licences of base models\n"
      "Written by `graft::licence_markdown()` (licences.cpp); a test keeps the two equal. No legal advice: the licence file in the model's own directory decides.\n"
      "`plan` refuses a base whose licence is unknown, not for commercial use or limited to some countries until the recipe says `accept_licence: IDENTIFIER`.\n\n"
      "| identifier | licence | families | commercial use | a student inherits it | not in | names and notices | source |\n|---|---|---|---|---|---|---|---|\n";
  for (const auto& terms : kTable) {
    const auto commercial = !terms.commercial ? std::string("no: ") + std::string(terms.commercial_conditions)
                            : terms.commercial_conditions.empty() ? std::string("yes") : "yes: " + std::string(terms.commercial_conditions);
    text += fmt::format("| `{}` | {} | {} | {} | {} | {} | {} | {} |\n", terms.identifier, terms.name, terms.families, commercial, terms.student, terms.territory, terms.naming, terms.source);
  }
  return text;
}

}  // namespace graft
