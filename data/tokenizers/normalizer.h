// The normaliser of a tokenizer: steps that change the text before it is cut into pieces.
#pragma once
#include <bitset>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "data/tokenizers/charsmap.h"
#include "data/tokenizers/normal_forms.h"
#include "data/tokenizers/regex_splitter.h"

namespace graft {

// "▁" stands for a space in sentencepiece's vocabularies.
inline constexpr std::string_view kSpaceSign = "\u2581";

struct ReplaceStep {
  std::string pattern;
  bool is_regex = false;
  std::string content;
  std::shared_ptr<const RegexSplitter> regex;  // when it is one
};
struct PrependStep { std::string text; };      // before every text that is not empty
struct StripStep { bool left = false, right = false; };  // white space
struct CharsmapStep { std::shared_ptr<const Charsmap> map; };  // as tokenizers applies it ("Precompiled")

// What a sentencepiece model does to a text, as the sentencepiece library and llama.cpp do it.
struct SentencepieceStep {
  std::shared_ptr<const Charsmap> map;         // null: characters stay
  bool remove_extra_white_space = false;       // at both ends, and all but one between words
  bool add_space_before = true;                // "add_dummy_prefix"
  bool space_is_suffix = false;                // that space comes behind the text
  bool escape_white_space = true;              // spaces become kSpaceSign
  bool replaces_stray_bytes = true;            // by U+FFFD; llama.cpp's BPE does not
  bool only_before_letters = false;            // no space before a text of spaces: llama.cpp's unigram
  std::bitset<256> kept_begins;                // first bytes of these:
  std::vector<std::string> kept;               // user-defined pieces stay as they are; the longest first
};

using NormalStep = std::variant<NormalForm, ReplaceStep, PrependStep, StripStep, CharsmapStep, SentencepieceStep>;

class Normalizer {
 public:
  Normalizer() = default;
  // The value of "normalizer" in tokenizer.json: null, NFC, NFD, NFKC, NFKD, Replace, Prepend, Strip, Precompiled, or a
  // Sequence of these. Others: UserError.
  explicit Normalizer(const nlohmann::json& description);
  explicit Normalizer(SentencepieceStep step) : steps_{std::move(step)} {}

  bool does_nothing() const { return steps_.empty(); }
  std::string normalize(std::string_view text) const;
  // How an added token is spelled in normalised text. Sentencepiece keeps its own as they are.
  std::string added_token(const std::string& content) const { return is_sentencepiece() ? content : normalize(content); }
  const std::vector<NormalStep>& steps() const { return steps_; }
  // A sentencepiece step becomes the steps of tokenizers that do the same.
  nlohmann::ordered_json to_json() const;

 private:
  bool is_sentencepiece() const { return steps_.size() == 1 && std::holds_alternative<SentencepieceStep>(steps_[0]); }

  std::vector<NormalStep> steps_;
};

}  // namespace graft
