// Cuts text into the pieces inside which the merges of BPE work.
#pragma once
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace graft {

enum class SplitBehavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };

// One step, as data: what stands in tokenizer.json, or what a GGUF file's tokenizer.ggml.pre means.
struct SplitRule {
  enum class Kind { kSplit, kDigits, kByteLevel, kMetaspace, kWhitespaceSplit };
  Kind kind = Kind::kSplit;
  std::string pattern;                                  // kSplit: a regular expression (a string pattern comes escaped)
  SplitBehavior behavior = SplitBehavior::kIsolated;    // kSplit
  bool invert = false;                                  // kSplit: what does not match is the match
  bool individual_digits = false;                       // kDigits
  bool add_prefix_space = false;                        // kByteLevel and kMetaspace: before every piece that does not begin with one
  bool use_regex = true;                                // kByteLevel: split by GPT-2's pattern
  bool only_at_start = false;                           // kMetaspace: add_prefix_space only where the whole text begins
  bool at_spaces = true;                                // kMetaspace: cut before every space
  bool operator==(const SplitRule&) const = default;
};

// "pre_tokenizer" of tokenizer.json: Split, Digits, ByteLevel (last, and present, if byte_level; else absent), Metaspace, WhitespaceSplit,
// or a Sequence of these; null if not byte_level. Else a UserError that names what is unknown.
std::vector<SplitRule> read_split_rules(const nlohmann::json& pre_tokenizer, bool byte_level = true);
nlohmann::ordered_json split_rules_to_json(const std::vector<SplitRule>& rules);

// The pieces of one text; those that differ from the text (a space was put before them) live in `made`.
struct Pieces {
  std::vector<std::string_view> pieces;
  std::deque<std::string> made;
};

class SplitStep;

class PreTokenizer {
 public:
  PreTokenizer() = default;
  // UserError when a pattern is broken or cannot be run exactly. use_scanners = false sends known patterns through PCRE2 too
  // (for tests).
  explicit PreTokenizer(std::vector<SplitRule> rules, bool use_scanners = true);

  const std::vector<SplitRule>& rules() const { return rules_; }
  // `out.pieces` is replaced; it points into `text` and `out.made`. Thread-safe.
  // at_start: the whole text begins with this one.
  void split(std::string_view text, Pieces& out, bool at_start = true) const;

 private:
  std::vector<SplitRule> rules_;
  std::vector<std::shared_ptr<const SplitStep>> steps_;
};

}  // namespace graft
