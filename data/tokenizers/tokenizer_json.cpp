// tokenizer.json -> TokenizerParts. Every part that is not understood is an error: never an approximation.
#include <algorithm>
#include <limits>
#include <unordered_map>

#include "data/tokenizers/tokenizer_parts.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

using nlohmann::json;

std::string excerpt(const json& value) { return value.dump(-1, ' ', true, json::error_handler_t::replace).substr(0, 100); }

class Reader {
 public:
  Reader(const json& file, const std::string& origin) : file_(file) { parts_.origin = origin; }

  TokenizerParts read() {
    if (!file_.is_object()) refuse("a JSON object", excerpt(file_), "is this a tokenizer.json?");
    const json version = part("version");
    if (!version.is_null() && version != "1.0") refuse("version 1.0", excerpt(version), "a newer format; report it");
    const json& model = object("model");
    // Files from before 2021 have no "type"; vocab and merges then say that it is BPE.
    const json type = model.value("type", json("BPE"));
    if (type == "Unigram") {
      read_unigram(model);
    } else if (type == "BPE" && model.contains("merges")) {
      read_bpe(model);
    } else {
      refuse("the model BPE or Unigram", excerpt(type), "this tokenizer is not supported yet");
    }
    try {
      parts_.normalizer = Normalizer(part("normalizer"));
      parts_.split_rules = read_split_rules(part("pre_tokenizer"), is_byte_level());
    } catch (const UserError& error) {
      refuse_again(error);
    }
    read_added_tokens();
    read_post_processor(part("post_processor"), false);
    if (is_byte_level()) {
      check_byte_level_decoder(part("decoder"));
    } else {
      read_sentencepiece_decoder(part("decoder"));
    }
    return std::move(parts_);
  }

 private:
  [[noreturn]] void refuse(std::string_view expected, std::string_view got, std::string_view what_to_do) const {
    fail("tokenizers", "expected {}, got {} ({}) — {}", expected, got, parts_.origin, what_to_do);
  }
  // The parts' own errors do not know the file.
  [[noreturn]] void refuse_again(const UserError& error) const {
    const std::string text = error.what();
    const std::string_view area = "[graft.tokenizers] ";
    fail("tokenizers", "{} [{}]", text.substr(text.starts_with(area) ? area.size() : 0), parts_.origin);
  }
  json part(const char* key) const { return file_.value(key, json()); }
  const json& object(const char* key) const {
    const auto found = file_.find(key);
    if (found == file_.end() || !found->is_object()) refuse(fmt::format("an object \"{}\"", key), "none", "is this a tokenizer.json?");
    return *found;
  }
  bool flag(const json& from, const char* key, bool absent) const {
    const auto found = from.find(key);
    if (found == from.end() || found->is_null()) return absent;
    if (!found->is_boolean()) refuse(fmt::format("true or false for \"{}\"", key), excerpt(*found), "is the file broken?");
    return found->get<bool>();
  }
  std::string text(const json& from, const char* key) const {
    const auto found = from.find(key);
    if (found == from.end() || found->is_null()) return "";
    if (!found->is_string()) refuse(fmt::format("a string for \"{}\"", key), excerpt(*found), "is the file broken?");
    return found->get<std::string>();
  }
  int32_t id(const json& value) const {
    if (!value.is_number_integer() || value < 0 || value > 0x7FFFFFFF) refuse("token ids below 2^31", excerpt(value), "is the file broken?");
    return value.get<int32_t>();
  }

  bool is_byte_level() const { return parts_.model == TokenModel::kByteLevelBpe; }
  // The text is spelled in the byte alphabet where the pre-tokenizer says so, or the decoder.
  bool names_byte_level() const {
    for (const char* key : {"pre_tokenizer", "decoder"}) {
      const json value = part(key);
      if (!value.is_object()) continue;
      if (value.value("type", json()) == "ByteLevel") return true;
      for (const char* list : {"pretokenizers", "decoders"}) {
        const json steps = value.value(list, json());
        if (!steps.is_array()) continue;
        for (const json& step : steps) {
          if (step.is_object() && step.value("type", json()) == "ByteLevel") return true;
        }
      }
    }
    return false;
  }

  void read_bpe(const json& model) {
    parts_.model = names_byte_level() ? TokenModel::kByteLevelBpe : TokenModel::kSymbolBpe;
    parts_.byte_fallback = flag(model, "byte_fallback", false);
    if (is_byte_level() && parts_.byte_fallback) refuse("byte_fallback false beside ByteLevel", "true", "this tokenizer is not supported yet");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (!text(model, key).empty()) refuse(fmt::format("no {}", key), fmt::format("'{}'", text(model, key)), "this kind of BPE is not supported yet");
    }
    const json dropout = model.value("dropout", json());
    if (!dropout.is_null() && dropout != 0.0) refuse("no dropout in the model", excerpt(dropout), "its ids would be random; set it to null");
    parts_.unknown_token = text(model, "unk_token");
    parts_.fuse_unknown = flag(model, "fuse_unk", false);
    parts_.ignore_merges = flag(model, "ignore_merges", false);
    const auto vocabulary = model.find("vocab");
    if (vocabulary == model.end() || !vocabulary->is_object()) refuse("an object \"vocab\"", "none", "is the file whole?");
    for (const auto& [token, value] : vocabulary->items()) parts_.vocabulary.emplace_back(token, id(value));
    if (!model["merges"].is_array()) refuse("an array \"merges\"", excerpt(model["merges"]), "is the file whole?");
    for (const json& merge : model["merges"]) read_merge(merge);
  }

  void read_unigram(const json& model) {
    parts_.model = TokenModel::kUnigram;
    parts_.byte_fallback = flag(model, "byte_fallback", false);
    parts_.fuse_unknown = true;
    const auto vocabulary = model.find("vocab");
    if (vocabulary == model.end() || !vocabulary->is_array() || vocabulary->empty()) refuse("a list \"vocab\" of tokens and scores", "none", "is the file whole?");
    parts_.least_score = std::numeric_limits<double>::infinity();
    for (const json& entry : *vocabulary) {
      if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number()) refuse("[\"token\", score]", excerpt(entry), "is the file broken?");
      parts_.vocabulary.emplace_back(entry[0].get<std::string>(), static_cast<int32_t>(parts_.vocabulary.size()));
      parts_.scores.push_back(entry[1].get<double>());
      parts_.least_score = std::min(parts_.least_score, parts_.scores.back());
    }
    const json unknown = model.value("unk_id", json());
    if (unknown.is_null() && !parts_.byte_fallback) refuse("an unk_id, or byte_fallback", "neither", "the reference library could not encode every text");
    if (unknown.is_null()) return;
    if (static_cast<size_t>(id(unknown)) >= parts_.vocabulary.size()) refuse(fmt::format("an unk_id below {}", parts_.vocabulary.size()), excerpt(unknown), "is the file broken?");
    parts_.unknown_token = parts_.vocabulary[unknown.get<size_t>()].first;
  }

  void read_merge(const json& merge) {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      parts_.merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      return;
    }
    if (!merge.is_string()) refuse("merges as \"a b\" or [\"a\", \"b\"]", excerpt(merge), "is the file broken?");
    const auto& pair = merge.get_ref<const std::string&>();
    if (pair.starts_with("#version")) return;
    const size_t space = pair.find(' ');
    if (space == std::string::npos || pair.find(' ', space + 1) != std::string::npos) refuse("merges as \"a b\"", excerpt(merge), "is the file broken?");
    parts_.merges.emplace_back(pair.substr(0, space), pair.substr(space + 1));
  }

  // The library gives an added token the id of its text in the vocabulary, else the next free one after it, whatever the file says.
  // Where the two disagree the file is not trusted.
  void read_added_tokens() {
    const json list = part("added_tokens");
    if (list.is_null()) return;
    if (!list.is_array()) refuse("an array \"added_tokens\"", excerpt(list), "is the file broken?");
    std::unordered_map<std::string_view, int32_t> vocabulary;
    for (const auto& [token, token_id] : parts_.vocabulary) vocabulary.emplace(token, token_id);
    auto next = static_cast<int32_t>(vocabulary.size());
    std::unordered_map<std::string, size_t> seen;
    for (const json& entry : list) {
      if (!entry.is_object()) refuse("objects in \"added_tokens\"", excerpt(entry), "is the file broken?");
      AddedToken token{.id = id(entry.value("id", json())), .content = text(entry, "content"), .special = flag(entry, "special", false),
                       .left_strip = flag(entry, "lstrip", false), .right_strip = flag(entry, "rstrip", false),
                       .single_word = flag(entry, "single_word", false), .normalized = flag(entry, "normalized", true)};
      if (token.content.empty()) continue;  // as the library does
      const auto before = seen.find(token.content);
      if (before != seen.end()) {  // said twice: the later flags hold
        token.id = parts_.added_tokens[before->second].id;
        parts_.added_tokens[before->second] = token;
        continue;
      }
      const auto known = vocabulary.find(token.content);
      const int32_t expected = known != vocabulary.end() ? known->second : next++;
      if (token.id != expected) {
        refuse(fmt::format("id {} for the added token '{}' (that of the vocabulary, or the next free one)", expected, token.content), std::to_string(token.id),
               "the reference library would take another id than the file says; correct the file");
      }
      seen.emplace(token.content, parts_.added_tokens.size());
      parts_.added_tokens.push_back(std::move(token));
    }
  }

  void read_post_processor(const json& processor, bool inside_sequence) {
    if (processor.is_null()) return;
    const json type = processor.is_object() ? processor.value("type", json()) : json();
    if (type == "ByteLevel") return;  // moves offsets only
    if (type == "Sequence" && !inside_sequence && processor.contains("processors") && processor["processors"].is_array()) {
      for (const json& step : processor["processors"]) read_post_processor(step, true);
    } else if (type == "TemplateProcessing" && processor.contains("single") && processor["single"].is_array()) {
      read_template(processor);
    } else {
      refuse("the post_processor ByteLevel, TemplateProcessing or a Sequence of these", excerpt(processor), "this tokenizer is not supported yet");
    }
  }

  void read_template(const json& processor) {
    std::vector<int32_t> before, after;
    bool text_seen = false;
    for (const json& piece : processor["single"]) {
      const bool is_text = piece.is_object() && piece.contains("Sequence");
      const bool is_token = piece.is_object() && piece.contains("SpecialToken");
      if (is_text && !text_seen && piece["Sequence"].is_object() && piece["Sequence"].value("id", json()) == "A") {
        text_seen = true;
      } else if (is_token && piece["SpecialToken"].is_object()) {
        const std::string name = text(piece["SpecialToken"], "id");
        const json tokens = processor.value("special_tokens", json::object());
        if (!tokens.is_object() || !tokens.contains(name) || !tokens[name].is_object() || !tokens[name].contains("ids") || !tokens[name]["ids"].is_array()) {
          refuse(fmt::format("ids for '{}' in the template's special_tokens", name), "none", "is the file broken?");
        }
        for (const json& value : tokens[name]["ids"]) (text_seen ? after : before).push_back(id(value));
      } else {
        refuse("a template of special tokens and one sequence A", excerpt(piece), "this tokenizer is not supported yet");
      }
    }
    if (!text_seen) refuse("a template with the sequence A", excerpt(processor["single"]), "is the file broken?");
    parts_.before.insert(parts_.before.begin(), before.begin(), before.end());
    parts_.after.insert(parts_.after.end(), after.begin(), after.end());
  }

  // Metaspace, or [Replace "▁" by " ", ByteFallback, Fuse, Strip one space at the front]: the last three may lack.
  void read_sentencepiece_decoder(const json& decoder) {
    const auto steps = decoder.is_object() && decoder.value("type", json()) == "Sequence" ? decoder.value("decoders", json()) : json::array({decoder});
    if (!steps.is_array()) refuse("decoders", excerpt(decoder), "is the file broken?");
    bool spaces = false;
    for (const json& step : steps) {
      const json type = step.is_object() ? step.value("type", json()) : json();
      if (type == "Metaspace" && !spaces) {
        spaces = true;
        parts_.decoding_drops_first_space = step.value("prepend_scheme", json(flag(step, "add_prefix_space", true) ? "always" : "never")) != "never";
      } else if (type == "Replace" && !spaces && step.value("pattern", json()) == json{{"String", "\u2581"}} && step.value("content", json()) == " ") {
        spaces = true;
      } else if (type == "Strip" && spaces && step.value("content", json()) == " " && step.value("start", json()) == 1 && step.value("stop", json()) == 0) {
        parts_.decoding_drops_first_space = true;
      } else if (type != "ByteFallback" && type != "Fuse") {
        refuse("the decoder Metaspace, or Replace, ByteFallback, Fuse and Strip", excerpt(decoder), "this tokenizer is not supported yet");
      }
    }
    if (!spaces) refuse("a decoder that makes spaces of \u2581", excerpt(decoder), "this tokenizer is not supported yet");
  }

  void check_byte_level_decoder(const json& decoder) const {
    const auto is_byte_level = [](const json& d) { return d.is_object() && d.value("type", json()) == "ByteLevel"; };
    const bool sequence = decoder.is_object() && decoder.value("type", json()) == "Sequence" && decoder.contains("decoders") &&
                          decoder["decoders"].is_array() && decoder["decoders"].size() == 1 && is_byte_level(decoder["decoders"][0]);
    if (!is_byte_level(decoder) && !sequence) refuse("the decoder ByteLevel", excerpt(decoder), "this tokenizer is not byte-level, or not supported yet");
  }

  const json& file_;
  TokenizerParts parts_;
};

}  // namespace

TokenizerParts read_tokenizer_json(const json& file, const std::string& origin) { return Reader(file, origin).read(); }

}  // namespace graft
