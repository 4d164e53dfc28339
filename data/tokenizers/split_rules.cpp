// Split rules from and to the "pre_tokenizer" of a tokenizer.json.
#include <algorithm>
#include <utility>

#include "data/tokenizers/pre_tokenizer.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::pair<std::string_view, SplitBehavior> kBehaviors[] = {{"Isolated", SplitBehavior::kIsolated},
                                                                     {"Removed", SplitBehavior::kRemoved},
                                                                     {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
                                                                     {"MergedWithNext", SplitBehavior::kMergedWithNext},
                                                                     {"Contiguous", SplitBehavior::kContiguous}};

[[noreturn]] void refuse(const json& rule) {
  fail("tokenizers", "expected a pre_tokenizer made of Split, Digits, ByteLevel, Metaspace, WhitespaceSplit or a Sequence of these, got {} (tokenizer.json) — this tokenizer is not supported yet",
       rule.dump(-1, ' ', true, json::error_handler_t::replace).substr(0, 120));
}

bool flag(const json& rule, const char* key, bool absent) {
  const auto found = rule.find(key);
  if (found == rule.end()) return absent;
  if (!found->is_boolean()) refuse(rule);
  return found->get<bool>();
}

// A string pattern stands for itself; Oniguruma's special characters are escaped.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view("\\.+*?()|[]{}^$#&-~").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

SplitRule read_split(const json& rule) {
  SplitRule out;
  const json pattern = rule.value("pattern", json());
  if (pattern.is_object() && pattern.contains("Regex") && pattern["Regex"].is_string()) {
    out.pattern = pattern["Regex"].get<std::string>();
  } else if (pattern.is_object() && pattern.contains("String") && pattern["String"].is_string()) {
    out.pattern = escaped(pattern["String"].get<std::string>());
  } else {
    refuse(rule);
  }
  const json behavior = rule.value("behavior", json());
  const auto named = std::find_if(std::begin(kBehaviors), std::end(kBehaviors), [&](const auto& known) { return behavior == known.first; });
  if (named == std::end(kBehaviors)) refuse(rule);
  out.behavior = named->second;
  out.invert = flag(rule, "invert", false);
  return out;
}

void read_rule(const json& rule, bool inside_sequence, std::vector<SplitRule>& rules) {
  const json type = rule.is_object() ? rule.value("type", json()) : json();
  if (type == "Sequence" && !inside_sequence && rule.contains("pretokenizers") && rule["pretokenizers"].is_array()) {
    for (const json& part : rule["pretokenizers"]) read_rule(part, true, rules);
  } else if (type == "Split") {
    rules.push_back(read_split(rule));
  } else if (type == "Digits") {
    rules.push_back({.kind = SplitRule::Kind::kDigits, .individual_digits = flag(rule, "individual_digits", false)});
  } else if (type == "ByteLevel") {
    rules.push_back({.kind = SplitRule::Kind::kByteLevel, .add_prefix_space = flag(rule, "add_prefix_space", true), .use_regex = flag(rule, "use_regex", true)});
  } else if (type == "Metaspace") {
    // Files from before 2024 say add_prefix_space.
    const json scheme = rule.value("prepend_scheme", json(flag(rule, "add_prefix_space", true) ? "always" : "never"));
    if (rule.value("replacement", json("\u2581")) != "\u2581" || (scheme != "always" && scheme != "first" && scheme != "never")) refuse(rule);
    rules.push_back({.kind = SplitRule::Kind::kMetaspace, .add_prefix_space = scheme != "never", .only_at_start = scheme == "first", .at_spaces = flag(rule, "split", true)});
  } else if (type == "WhitespaceSplit") {
    rules.push_back({.kind = SplitRule::Kind::kWhitespaceSplit});
  } else {
    refuse(rule);
  }
}

}  // namespace

std::vector<SplitRule> read_split_rules(const json& pre_tokenizer, bool byte_level) {
  std::vector<SplitRule> rules;
  if (pre_tokenizer.is_null() && !byte_level) return rules;
  read_rule(pre_tokenizer, false, rules);
  if (rules.size() > 16) fail("tokenizers", "expected at most 16 steps in the pre_tokenizer, got {} (tokenizer.json) — is the file whole?", rules.size());
  for (size_t i = 0; i < rules.size(); ++i) {
    const bool last = i + 1 == rules.size();
    // After ByteLevel the text is spelled in the byte alphabet; a step behind it would see other characters.
    if (byte_level && (rules[i].kind == SplitRule::Kind::kByteLevel) != last) {
      fail("tokenizers", "expected ByteLevel as the last step of the pre_tokenizer, and only there, got {} (tokenizer.json) — this tokenizer is not byte-level, or not supported yet",
           pre_tokenizer.dump(-1, ' ', true, json::error_handler_t::replace).substr(0, 200));
    }
  }
  if (!byte_level && std::any_of(rules.begin(), rules.end(), [](const SplitRule& rule) { return rule.kind == SplitRule::Kind::kByteLevel; })) {
    fail("tokenizers", "expected no ByteLevel in the pre_tokenizer of a model with byte_fallback or of Unigram, got one (tokenizer.json) — this tokenizer is not supported yet");
  }
  if (byte_level && rules.empty()) fail("tokenizers", "expected ByteLevel in the pre_tokenizer, got an empty Sequence (tokenizer.json) — this tokenizer is not byte-level");
  return rules;
}

ordered_json split_rules_to_json(const std::vector<SplitRule>& rules) {
  ordered_json steps = ordered_json::array();
  for (const SplitRule& rule : rules) {
    switch (rule.kind) {
      case SplitRule::Kind::kSplit: {
        const auto named = std::find_if(std::begin(kBehaviors), std::end(kBehaviors), [&](const auto& known) { return known.second == rule.behavior; });
        steps.push_back({{"type", "Split"}, {"pattern", {{"Regex", rule.pattern}}}, {"behavior", named->first}, {"invert", rule.invert}});
        break;
      }
      case SplitRule::Kind::kDigits: steps.push_back({{"type", "Digits"}, {"individual_digits", rule.individual_digits}}); break;
      case SplitRule::Kind::kByteLevel:
        steps.push_back({{"type", "ByteLevel"}, {"add_prefix_space", rule.add_prefix_space}, {"trim_offsets", true}, {"use_regex", rule.use_regex}});
        break;
      case SplitRule::Kind::kMetaspace:
        steps.push_back({{"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", !rule.add_prefix_space ? "never" : rule.only_at_start ? "first" : "always"},
                         {"split", rule.at_spaces}});
        break;
      case SplitRule::Kind::kWhitespaceSplit: steps.push_back({{"type", "WhitespaceSplit"}}); break;
    }
  }
  if (steps.empty()) return nullptr;
  if (steps.size() == 1) return steps[0];
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

}  // namespace graft
