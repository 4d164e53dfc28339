#include "data/tokenizers/normalizer.h"

#include <algorithm>

#include "data/tokenizers/base64.h"
#include "data/tokenizers/unicode_classes.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::pair<std::string_view, NormalForm> kForms[] = {
    {"NFC", NormalForm::kNfc}, {"NFD", NormalForm::kNfd}, {"NFKC", NormalForm::kNfkc}, {"NFKD", NormalForm::kNfkd}};

[[noreturn]] void refuse(const json& description) {
  fail("tokenizers", "expected the normalizer null, NFC, NFD, NFKC, NFKD, Replace, Prepend, Strip, Precompiled or a Sequence of these, got {} (tokenizer.json) — this tokenizer is not supported yet",
       description.dump(-1, ' ', true, json::error_handler_t::replace).substr(0, 80));
}

NormalStep read_replace(const json& description) {
  const json pattern = description.value("pattern", json()), content = description.value("content", json());
  if (!pattern.is_object() || !content.is_string()) refuse(description);
  ReplaceStep step{.content = content.get<std::string>()};
  if (pattern.contains("String") && pattern["String"].is_string()) {
    step.pattern = pattern["String"].get<std::string>();
    if (step.pattern.empty()) refuse(description);
  } else if (pattern.contains("Regex") && pattern["Regex"].is_string()) {
    step.pattern = pattern["Regex"].get<std::string>();
    step.is_regex = true;
    step.regex = std::make_shared<RegexSplitter>(step.pattern);
  } else {
    refuse(description);
  }
  return step;
}

NormalStep read_step(const json& description) {
  const json type = description.is_object() ? description.value("type", json()) : json();
  for (const auto& [name, form] : kForms) {
    if (type == name) return form;
  }
  const auto text = [&](const char* key) {
    const auto found = description.find(key);
    if (found == description.end() || !found->is_string()) refuse(description);
    return found->get<std::string>();
  };
  const auto flag = [&](const char* key) {
    const auto found = description.find(key);
    if (found == description.end() || !found->is_boolean()) refuse(description);
    return found->get<bool>();
  };
  if (type == "Replace") return read_replace(description);
  if (type == "Prepend") return PrependStep{text("prepend")};
  if (type == "Strip") return StripStep{flag("strip_left"), flag("strip_right")};
  if (type == "Precompiled") {
    const auto bytes = from_base64(text("precompiled_charsmap"));
    if (!bytes) refuse(description);
    return CharsmapStep{std::make_shared<Charsmap>(*bytes)};
  }
  refuse(description);
}

std::string changed(const ReplaceStep& step, std::string_view text) {
  std::string out;
  size_t position = 0;
  const auto replace = [&](size_t begin, size_t end) {
    out += text.substr(position, begin - position);
    out += step.content;
    position = end;
  };
  if (step.is_regex) {
    for (const MatchSpan& match : step.regex->matches(text)) replace(match.begin, match.end);
  } else {
    for (size_t at = text.find(step.pattern); at != std::string_view::npos; at = text.find(step.pattern, at + step.pattern.size())) replace(at, at + step.pattern.size());
  }
  return out += text.substr(position);
}

std::string changed(const StripStep& step, std::string_view text) {
  size_t begin = 0, end = text.size();
  const auto space = [&](size_t at) { return classed_char(text, at).is(kSpace); };
  while (step.left && begin < end && space(begin)) begin += classed_char(text, begin).length;
  while (step.right && end > begin && space(previous_utf8(text, end))) end = previous_utf8(text, end);
  return std::string(text.substr(begin, end - begin));
}

// What the front of `text` becomes, and how many bytes of it.
Charsmap::Match front(const SentencepieceStep& step, std::string_view text) {
  if (step.kept_begins[static_cast<unsigned char>(text[0])]) {
    for (const std::string& piece : step.kept) {
      if (text.starts_with(piece)) return {piece.size(), text.substr(0, piece.size())};
    }
  }
  if (step.map != nullptr) {
    if (const auto found = step.map->longest(text)) return *found;
  }
  const Utf8Char next = decode_utf8(text, 0);
  if (next.code == kInvalidUtf8 && step.replaces_stray_bytes) return {1, "\uFFFD"};
  return {next.length, text.substr(0, next.length)};
}

std::string changed(const SentencepieceStep& step, std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 3 + 3);
  const std::string_view space = step.escape_white_space ? kSpaceSign : std::string_view(" ");
  const bool tidy = step.remove_extra_white_space;
  while (tidy && !text.empty()) {
    const Charsmap::Match next = front(step, text);
    if (next.replacement != " ") break;
    text.remove_prefix(next.length);
  }
  if (text.empty()) return "";
  if (step.add_space_before && !step.space_is_suffix) out += space;
  bool after_space = tidy;
  const bool plain = step.map == nullptr && step.kept.empty();
  while (!text.empty()) {
    // ASCII text needs no look-up where there is no map.
    Charsmap::Match next = plain && static_cast<unsigned char>(text[0]) < 0x80 ? Charsmap::Match{1, text.substr(0, 1)} : front(step, text);
    text.remove_prefix(next.length);
    while (after_space && next.replacement.starts_with(' ')) next.replacement.remove_prefix(1);
    if (next.replacement.empty()) continue;
    for (const char c : next.replacement) {
      if (c == ' ') {
        out += space;
      } else {
        out += c;
      }
    }
    after_space = tidy && next.replacement.ends_with(' ');
  }
  while (tidy && out.ends_with(space)) out.resize(out.size() - space.size());
  if (step.only_before_letters && step.add_space_before && std::ranges::all_of(out, [&](char c) { return space.find(c) != std::string_view::npos; })) out.erase(0, space.size());
  if (step.add_space_before && step.space_is_suffix) out += space;
  return out;
}

std::string changed(NormalForm form, std::string_view text) { return to_normal_form(text, form); }
std::string changed(const PrependStep& step, std::string_view text) { return text.empty() ? "" : step.text + std::string(text); }
std::string changed(const CharsmapStep& step, std::string_view text) { return step.map->replace_graphemes(text); }

ordered_json replace_json(const char* kind, std::string_view pattern, std::string_view content) {
  return {{"type", "Replace"}, {"pattern", {{kind, pattern}}}, {"content", content}};
}
ordered_json precompiled_json(const Charsmap& map) { return {{"type", "Precompiled"}, {"precompiled_charsmap", to_base64(map.bytes())}}; }

void write(NormalForm form, ordered_json& all) {
  for (const auto& [name, known] : kForms) {
    if (known == form) all.push_back({{"type", name}});
  }
}
void write(const ReplaceStep& step, ordered_json& all) { all.push_back(replace_json(step.is_regex ? "Regex" : "String", step.pattern, step.content)); }
void write(const PrependStep& step, ordered_json& all) { all.push_back({{"type", "Prepend"}, {"prepend", step.text}}); }
void write(const StripStep& step, ordered_json& all) { all.push_back({{"type", "Strip"}, {"strip_left", step.left}, {"strip_right", step.right}}); }
void write(const CharsmapStep& step, ordered_json& all) { all.push_back(precompiled_json(*step.map)); }
void write(const SentencepieceStep& step, ordered_json& all) {
  if (step.map != nullptr) all.push_back(precompiled_json(*step.map));
  if (step.remove_extra_white_space) {
    all.push_back(replace_json("Regex", "^ +| +$", ""));
    all.push_back(replace_json("Regex", " {2,}", " "));
  }
  if (step.add_space_before && !step.space_is_suffix) all.push_back({{"type", "Prepend"}, {"prepend", step.escape_white_space ? kSpaceSign : std::string_view(" ")}});
  if (step.add_space_before && step.space_is_suffix) all.push_back(replace_json("Regex", "(?<=.)$", " "));
  if (step.escape_white_space) all.push_back(replace_json("String", " ", kSpaceSign));
}

}  // namespace

Normalizer::Normalizer(const json& description) {
  if (description.is_null()) return;
  const json type = description.is_object() ? description.value("type", json()) : json();
  if (type == "Sequence" && description.contains("normalizers") && description["normalizers"].is_array()) {
    for (const auto& part : description["normalizers"]) {
      // One level is all that occurs, and nesting without end would overflow the stack.
      if (part.is_object() && part.value("type", json()) == "Sequence") fail("tokenizers", "expected no Sequence inside a normalizer Sequence, got one (tokenizer.json) — flatten it");
      steps_.push_back(read_step(part));
    }
    return;
  }
  steps_.push_back(read_step(description));
}

std::string Normalizer::normalize(std::string_view text) const {
  std::string result(text);
  for (const NormalStep& step : steps_) result = std::visit([&](const auto& one) { return changed(one, result); }, step);
  return result;
}

ordered_json Normalizer::to_json() const {
  auto all = ordered_json::array();
  for (const NormalStep& step : steps_) std::visit([&](const auto& one) { write(one, all); }, step);
  if (all.empty()) return nullptr;
  if (all.size() == 1) return all[0];
  return {{"type", "Sequence"}, {"normalizers", all}};
}

}  // namespace graft
