// Sentencepiece's kinds of tokenizers back to tokenizer.json and to GGUF metadata.
#include <algorithm>

#include "checkpoints/gguf_writer.h"
#include "data/tokenizers/json_object_writer.h"
#include "data/tokenizers/sentencepiece_tokenizer.h"
#include "kernels/common/error.h"

namespace graft {

using nlohmann::ordered_json;

ordered_json SentencepieceTokenizer::to_tokenizer_json() const {
  for (size_t id = 0; id < spellings_.size(); ++id) need_utf8(id);
  const auto spelling = [&](int32_t id) -> const std::string& { return spellings_[static_cast<size_t>(id)]; };
  const bool has_unknown = !parts_.unknown_token.empty();
  ordered_json model;
  if (is_bpe()) {
    if (!bpe_.bare_characters().empty()) {
      fail("tokenizers", "expected every character of a token to be a token, got '{}' which is none ({}) — tokenizer.json cannot say this; export GGUF", bpe_.bare_characters().front(), parts_.origin);
    }
    ObjectWriter vocabulary;
    for (size_t id = 0; id < spellings_.size(); ++id) {
      if (!spellings_[id].empty()) vocabulary.add(spellings_[id], static_cast<int64_t>(id));
    }
    ordered_json merges = ordered_json::array();
    for (const Merge& merge : bpe_.merges()) merges.push_back({spelling(merge.left), spelling(merge.right)});
    model = {{"type", "BPE"}, {"dropout", nullptr}, {"unk_token", has_unknown ? ordered_json(parts_.unknown_token) : ordered_json()},
             {"continuing_subword_prefix", nullptr}, {"end_of_word_suffix", nullptr}, {"fuse_unk", parts_.fuse_unknown},
             {"byte_fallback", parts_.byte_fallback}, {"ignore_merges", parts_.ignore_merges}};
    model["vocab"] = vocabulary.take();
    model["merges"] = std::move(merges);
  } else {
    ordered_json vocabulary = ordered_json::array();
    for (size_t id = 0; id < spellings_.size(); ++id) {
      const bool hole = spellings_[id].empty();
      vocabulary.push_back({hole ? fmt::format("[PAD{}]", id) : spellings_[id], hole ? 0.0 : scores_[id]});
    }
    model = {{"type", "Unigram"}, {"unk_id", has_unknown ? ordered_json(unknown_id()) : ordered_json()}, {"vocab", std::move(vocabulary)}, {"byte_fallback", parts_.byte_fallback}};
  }
  ordered_json steps = {{{"type", "Replace"}, {"pattern", {{"String", kSpaceSign}}}, {"content", " "}}, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}};
  if (parts_.decoding_drops_first_space) steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return tokenizer_json(std::move(model), {{"type", "Sequence"}, {"decoders", steps}}, nullptr);
}

int32_t SentencepieceTokenizer::gguf_type(size_t id) const {
  if (spellings_[id] == parts_.unknown_token) return 2;
  if (parts_.byte_fallback && byte_of_token(spellings_[id])) return 6;
  if (always_taken_[id]) return 4;
  return 1;
}

// llama.cpp finds user-defined tokens in the text as it came, where spaces are spaces.
std::string SentencepieceTokenizer::gguf_text(size_t id) const {
  const auto added = added_.find(static_cast<int32_t>(id));
  const bool in_normalized_text = added != added_.end() && !added->second->special && added->second->normalized;
  return in_normalized_text || always_taken_[id] ? bytes_[id] : spellings_[id];
}

// Gemma's added tokens of several space signs: no text has the signs themselves, the merges make them of spaces.
bool SentencepieceTokenizer::found_by_merges(size_t id) const {
  const AddedToken& token = *added_.at(static_cast<int32_t>(id));
  return is_bpe() && !token.special && !token.normalized && token.content.find(kSpaceSign) != std::string::npos;
}

// What llama.cpp can say of the way from text to pieces: a space before every text, spaces as signs, a charsmap.
SentencepieceTokenizer::GgufForm SentencepieceTokenizer::gguf_form() const {
  GgufForm form;
  const auto refuse = [&] {
    fail("tokenizers", "expected a normaliser and pre-tokenizer that llama.cpp knows (spaces as \u2581, one before the text), got {} and {} ({}) — this tokenizer cannot be exported to GGUF; export safetensors",
         parts_.normalizer.to_json().dump().substr(0, 200), split_rules_to_json(parts_.split_rules).dump().substr(0, 200), parts_.origin);
  };
  bool escaped = false;
  for (const NormalStep& step : parts_.normalizer.steps()) {
    if (const auto* replace = std::get_if<ReplaceStep>(&step); replace != nullptr && !replace->is_regex && replace->pattern == " " && replace->content == kSpaceSign && !escaped) {
      escaped = true;
    } else if (const auto* prepend = std::get_if<PrependStep>(&step); prepend != nullptr && prepend->text == kSpaceSign && !form.space_before) {
      form.space_before = true;
    } else if (const auto* own = std::get_if<SentencepieceStep>(&step); own != nullptr && parts_.normalizer.steps().size() == 1 && own->escape_white_space && !own->space_is_suffix) {
      escaped = true;
      form.space_before = own->add_space_before;
      form.remove_extra = own->remove_extra_white_space;
      form.map = own->map;
    } else {
      refuse();
    }
  }
  for (const SplitRule& rule : parts_.split_rules) {
    if (rule.kind == SplitRule::Kind::kSplit && rule.pattern == " " && escaped) continue;  // Gemma: no space is left to split at
    if (rule.kind != SplitRule::Kind::kMetaspace || parts_.split_rules.size() != 1 || rule.at_spaces) refuse();
    escaped = true;
    form.space_before = form.space_before || rule.add_prefix_space;
    form.metaspace = rule.add_prefix_space;
    form.only_at_start = rule.only_at_start;
  }
  if (!escaped) refuse();
  return form;
}

std::vector<GgufEntry> SentencepieceTokenizer::to_gguf_metadata(int64_t num_rows) const {
  const GgufForm form = gguf_form();
  if (is_bpe() && !parts_.byte_fallback) fail("tokenizers", "expected byte tokens in a sentencepiece BPE, got none ({}) — llama.cpp cannot encode what has no token; export safetensors", parts_.origin);
  std::vector<GgufEntry> entries = gguf_vocabulary(is_bpe() ? "llama" : "t5", "default", num_rows, true);
  if (is_bpe() && scores_.empty()) {
    // llama.cpp joins by scores: the rank of the first merge to a token is its score.
    std::vector<float> scores(std::get<std::vector<std::string>>(entries[2].value).size(), 0.0f);
    for (auto merge = bpe_.merges().rbegin(); merge != bpe_.merges().rend(); ++merge) scores[static_cast<size_t>(merge->joined)] = -static_cast<float>(merge->rank) - 1;
    entries[3] = gguf_f32s("tokenizer.ggml.scores", std::move(scores));
  }
  add_gguf_ids(entries);
  entries.push_back(gguf_bool("tokenizer.ggml.add_space_prefix", form.space_before));
  if (!is_bpe()) {
    entries.push_back(gguf_bool("tokenizer.ggml.remove_extra_whitespaces", form.remove_extra));
    if (form.map != nullptr) {
      std::vector<uint64_t> bytes;
      for (const char byte : form.map->bytes()) bytes.push_back(static_cast<unsigned char>(byte));
      entries.push_back({"tokenizer.ggml.precompiled_charsmap", GgufType::kArray, GgufType::kU8, std::move(bytes)});
    }
  }
  return entries;
}

std::vector<std::string> SentencepieceTokenizer::gguf_differences() const {
  std::vector<std::string> found;
  const GgufForm form = gguf_form();
  if (is_bpe() && form.map != nullptr) found.push_back("characters that the model's charsmap changes (NFKC): llama.cpp takes them as they are");
  if (is_bpe() && form.remove_extra) found.push_back("spaces at the ends of a text, and several in a row: llama.cpp keeps them");
  if (form.metaspace) found.push_back("texts that begin with a space: llama.cpp puts another before them");
  if (form.only_at_start) found.push_back("text behind a special token: llama.cpp puts a space before it");
  if (is_bpe() && scores_.empty() && !bpe_.joins_all_neighbours(ids_, added_)) {
    found.push_back("words for which merges are missing: llama.cpp joins all neighbours whose text is a token");
  }
  for (const AddedToken& token : parts_.added_tokens) {
    if (token.normalized && !token.special && parts_.normalizer.added_token(token.content) != token.content) {
      found.push_back(fmt::format("'{}': llama.cpp does not find added tokens in normalised text", token.content));
    }
    if (token.left_strip || token.right_strip || token.single_word) found.push_back(fmt::format("white space or words beside '{}': GGUF has no lstrip, rstrip, single_word", token.content));
  }
  return found;
}

}  // namespace graft
