// A byte-level BPE back to tokenizer.json and to GGUF metadata.
#include "checkpoints/gguf_writer.h"
#include "data/tokenizers/byte_level_bpe.h"
#include "data/tokenizers/first_bytes.h"
#include "data/tokenizers/json_object_writer.h"
#include "data/tokenizers/scanners.h"
#include "data/tokenizers/tokenizer_sources.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

using nlohmann::ordered_json;

// The patterns of tokenizer.json and the forms of them that llama.cpp runs under the same name.
constexpr std::pair<std::string_view, std::string_view> kGgufForms[] = {{kQwen2Pattern, kQwen2GgufPattern},
                                                                        {kLlama3Pattern, kLlama3GgufPattern},
                                                                        {kQwen35Pattern, kQwen35GgufPattern},
                                                                        {kGpt4oPattern, kGpt4oGgufPattern},
                                                                        {kTekkenPattern, kTekkenGgufPattern},
                                                                        {kKimiPattern, kKimiGgufPattern}};

bool splits_at_lacking_bytes(const SplitRule& rule) {
  return rule.kind == SplitRule::Kind::kSplit && rule.behavior == SplitBehavior::kIsolated && read_first_bytes_pattern(rule.pattern).has_value();
}

// The rules as one list of isolating patterns in llama.cpp's forms, so that two spellings of the same cutting compare equal. Empty:
// not of this form.
std::vector<std::string> as_gguf_patterns(const std::vector<SplitRule>& rules) {
  std::vector<std::string> patterns;
  for (const SplitRule& rule : rules) {
    std::string pattern = rule.pattern;
    if (rule.kind == SplitRule::Kind::kDigits) {
      if (!rule.individual_digits) return {};
      pattern = kNumberPattern;
    } else if (rule.kind == SplitRule::Kind::kByteLevel) {
      if (rule.add_prefix_space) return {};
      if (!rule.use_regex) continue;
      pattern = kGpt2Pattern;
    } else if (splits_at_lacking_bytes(rule)) {
      continue;  // llama.cpp does so by itself
    } else {
      const KnownPattern* known = find_known_pattern(pattern);
      const bool all_matches = rule.behavior == SplitBehavior::kRemoved && rule.invert && known != nullptr && known->total;
      if (rule.behavior != SplitBehavior::kIsolated && !all_matches) return {};
    }
    for (const auto& [hub, gguf] : kGgufForms) {
      if (pattern == hub) pattern = gguf;
    }
    patterns.push_back(std::move(pattern));
  }
  return patterns;
}

}  // namespace

ordered_json ByteLevelBpe::to_tokenizer_json() const {
  ObjectWriter vocabulary;
  for (size_t id = 0; id < spellings_.size(); ++id) {
    // Added tokens go into the vocabulary too: outside it the library would number them anew.
    need_utf8(id);
    if (!spellings_[id].empty()) vocabulary.add(spellings_[id], static_cast<int64_t>(id));
  }
  ordered_json merges = ordered_json::array();
  for (const Merge& merge : merges_) {
    merges.push_back({spellings_[static_cast<size_t>(merge.left)], spellings_[static_cast<size_t>(merge.right)]});
  }
  const bool has_unknown = !parts_.unknown_token.empty();
  ordered_json model = {{"type", "BPE"}, {"dropout", nullptr}, {"unk_token", has_unknown ? ordered_json(parts_.unknown_token) : ordered_json()},
                        {"continuing_subword_prefix", nullptr}, {"end_of_word_suffix", nullptr}, {"fuse_unk", parts_.fuse_unknown},
                        {"byte_fallback", false}, {"ignore_merges", parts_.ignore_merges}};
  model["vocab"] = vocabulary.take();
  model["merges"] = std::move(merges);
  return tokenizer_json(std::move(model), {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}},
                        {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", false}, {"use_regex", true}});
}

std::string_view ByteLevelBpe::gguf_pre_name() const {
  const std::vector<std::string> patterns = as_gguf_patterns(parts_.split_rules);
  std::string_view other;  // same cutting, but llama.cpp treats the merges of that name otherwise
  for (const GgufPre& pre : known_gguf_pre()) {
    if (patterns.empty() || as_gguf_patterns(pre.rules) != patterns) continue;
    if (pre.ignore_merges == parts_.ignore_merges) return pre.name;
    if (other.empty()) other = pre.name;
  }
  // The two treatments are one where the merges lead to every token anyway.
  if (!other.empty() && parts_.ignore_merges && merges_reach_every_token()) return other;
  fail("tokenizers", "expected a pre-tokenizer that llama.cpp knows, got {} with ignore_merges {} ({}) — this tokenizer cannot be exported to GGUF; export safetensors",
       split_rules_to_json(parts_.split_rules).dump(), parts_.ignore_merges, parts_.origin);
}

std::vector<GgufEntry> ByteLevelBpe::to_gguf_metadata(int64_t num_rows) const {
  std::vector<GgufEntry> entries = gguf_vocabulary("gpt2", std::string(gguf_pre_name()), num_rows, false);
  std::vector<std::string> merges;
  for (const Merge& merge : merges_) {
    const std::string& left = spellings_[static_cast<size_t>(merge.left)];
    const std::string& right = spellings_[static_cast<size_t>(merge.right)];
    if (left.find(' ') != std::string::npos || right.find(' ') != std::string::npos) fail("tokenizers", "expected merges without spaces, got '{}' + '{}' ({}) — GGUF cannot say this", left, right, parts_.origin);
    merges.push_back(left + " " + right);
  }
  entries.push_back(gguf_strings("tokenizer.ggml.merges", std::move(merges)));
  add_gguf_ids(entries);
  return entries;
}

std::vector<std::string> ByteLevelBpe::gguf_differences() const {
  std::vector<std::string> found;
  if (!parts_.normalizer.does_nothing()) found.push_back(fmt::format("the normaliser {}: llama.cpp does not normalise text", parts_.normalizer.to_json().dump()));
  for (const SplitRule& rule : parts_.split_rules) {
    if (rule.kind == SplitRule::Kind::kDigits) found.push_back("13 digits that are new in Unicode 17 (Tolong Siki, Chisoi): llama.cpp does not take them for digits");
    if (rule.pattern == kKimiPattern) found.push_back("words with marks or with capitals inside, and Han characters outside the common blocks: llama.cpp's form of this split pattern ignores them");
    if (rule.pattern == kGpt4oPattern || rule.pattern == kTekkenPattern) {
      found.push_back("words with marks, and upper and lower case outside ASCII: llama.cpp's form of this split pattern ignores both");
    }
  }
  for (const AddedToken& token : parts_.added_tokens) {
    if (token.left_strip || token.right_strip || token.single_word) found.push_back(fmt::format("white space or words beside '{}': GGUF has no lstrip, rstrip, single_word", token.content));
  }
  return found;
}

}  // namespace graft
