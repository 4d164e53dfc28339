// A byte-level BPE back to tokenizer.json and to GGUF metadata.
#include <algorithm>

#include "checkpoints/gguf_writer.h"
#include "data/tokenizers/byte_level_bpe.h"
#include "data/tokenizers/first_bytes.h"
#include "data/tokenizers/scanners.h"
#include "data/tokenizers/tokenizer_sources.h"
#include "data/tokenizers/utf8.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

using nlohmann::ordered_json;

// ordered_json's own insertion looks for the key first, which is quadratic for a vocabulary.
class ObjectWriter {
 public:
  void add(const std::string& key, ordered_json value) { static_cast<Container&>(object_).emplace_back(key, std::move(value)); }
  ordered_json take() { return ordered_json(std::move(object_)); }

 private:
  using Object = ordered_json::object_t;
  using Container = Object::Container;
  Object object_;
};

// The patterns of tokenizer.json and the forms of them that llama.cpp runs under the same name.
constexpr std::pair<std::string_view, std::string_view> kGgufForms[] = {{kQwen2Pattern, kQwen2GgufPattern},
                                                                        {kLlama3Pattern, kLlama3GgufPattern},
                                                                        {kQwen35Pattern, kQwen35GgufPattern},
                                                                        {kGpt4oPattern, kGpt4oGgufPattern},
                                                                        {kTekkenPattern, kTekkenGgufPattern}};

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

ordered_json added_token_to_json(const AddedToken& token) {
  return {{"id", token.id}, {"content", token.content}, {"single_word", token.single_word}, {"lstrip", token.left_strip},
          {"rstrip", token.right_strip}, {"normalized", token.normalized}, {"special", token.special}};
}

std::string key(const char* name) { return std::string("tokenizer.ggml.") + name; }

}  // namespace

ordered_json ByteLevelBpe::to_tokenizer_json() const {
  ObjectWriter vocabulary;
  for (size_t id = 0; id < spellings_.size(); ++id) {
    // Added tokens go into the vocabulary too: outside it the library would number them anew.
    if (to_valid_utf8(spellings_[id]) != spellings_[id]) fail("tokenizers", "expected tokens in UTF-8, got bytes that are not in token {} ({}) — JSON cannot hold it", id, parts_.origin);
    if (!spellings_[id].empty()) vocabulary.add(spellings_[id], static_cast<int64_t>(id));
  }
  ordered_json merges = ordered_json::array();
  for (const BpeModel::Merge& merge : merges_) {
    merges.push_back({spellings_[static_cast<size_t>(merge.left)], spellings_[static_cast<size_t>(merge.right)]});
  }
  ordered_json added = ordered_json::array();
  for (const AddedToken& token : parts_.added_tokens) added.push_back(added_token_to_json(token));

  ordered_json processor = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", false}, {"use_regex", true}};
  if (!parts_.before.empty() || !parts_.after.empty()) {
    ordered_json single = ordered_json::array(), pair, tokens = ordered_json::object();
    const auto put = [&](const std::vector<int32_t>& ids) {
      for (const int32_t id : ids) {
        const std::string& name = spellings_[static_cast<size_t>(id)];
        single.push_back({{"SpecialToken", {{"id", name}, {"type_id", 0}}}});
        tokens[name] = {{"id", name}, {"ids", ordered_json::array({id})}, {"tokens", ordered_json::array({name})}};
      }
    };
    put(parts_.before);
    single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
    put(parts_.after);
    pair = single;
    pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
    processor = {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", tokens}};
  }
  const bool has_unknown = !parts_.unknown_token.empty();
  ordered_json model = {{"type", "BPE"}, {"dropout", nullptr}, {"unk_token", has_unknown ? ordered_json(parts_.unknown_token) : ordered_json()},
                        {"continuing_subword_prefix", nullptr}, {"end_of_word_suffix", nullptr}, {"fuse_unk", parts_.fuse_unknown},
                        {"byte_fallback", false}, {"ignore_merges", parts_.ignore_merges}};
  model["vocab"] = vocabulary.take();
  model["merges"] = std::move(merges);
  ordered_json file = {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}};
  file["added_tokens"] = std::move(added);
  file["normalizer"] = parts_.normalizer.to_json();
  file["pre_tokenizer"] = split_rules_to_json(parts_.split_rules);
  file["post_processor"] = std::move(processor);
  file["decoder"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  file["model"] = std::move(model);
  return file;
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
  if (num_rows != 0 && vocab_size() > num_rows) {
    fail("tokenizers", "expected at most {} tokens, the rows of the embedding, got {} ({}; the last is '{}') — the tokenizer has tokens that the model lacks; remove them or take the model's own tokenizer",
         num_rows, vocab_size(), parts_.origin, spellings_.back());
  }
  const auto only = [&](const std::vector<int32_t>& ids, std::optional<int32_t> wanted, const char* what) {
    if (ids.empty()) return false;
    if (ids.size() != 1 || wanted != ids[0]) {
      fail("tokenizers", "expected nothing or the {} token around the text, got {} tokens, the first '{}' ({}) — GGUF cannot say this", what, ids.size(),
           spellings_[static_cast<size_t>(ids[0])], parts_.origin);
    }
    return true;
  };
  const bool add_bos = only(parts_.before, bos_id, "BOS"), add_eos = only(parts_.after, eos_id, "EOS");

  std::vector<std::string> tokens = spellings_, merges;
  std::vector<int32_t> types;
  tokens.resize(static_cast<size_t>(std::max(num_rows, vocab_size())));
  for (size_t id = 0; id < tokens.size(); ++id) {
    const auto added = added_.find(static_cast<int32_t>(id));
    types.push_back(tokens[id].empty() ? 5 : added == added_.end() ? 1 : added->second->special ? 3 : 4);  // unused, normal, control, user-defined
    if (tokens[id].empty()) tokens[id] = fmt::format("[PAD{}]", id);
  }
  for (const BpeModel::Merge& merge : merges_) {
    const std::string& left = spellings_[static_cast<size_t>(merge.left)];
    const std::string& right = spellings_[static_cast<size_t>(merge.right)];
    if (left.find(' ') != std::string::npos || right.find(' ') != std::string::npos) fail("tokenizers", "expected merges without spaces, got '{}' + '{}' ({}) — GGUF cannot say this", left, right, parts_.origin);
    merges.push_back(left + " " + right);
  }
  std::vector<GgufEntry> entries = {gguf_string(key("model"), "gpt2"), gguf_string(key("pre"), std::string(gguf_pre_name())), gguf_strings(key("tokens"), std::move(tokens)),
                                    gguf_i32s(key("token_type"), std::move(types)), gguf_strings(key("merges"), std::move(merges))};
  if (bos_id) entries.push_back(gguf_u32(key("bos_token_id"), static_cast<uint32_t>(*bos_id)));
  if (eos_id) entries.push_back(gguf_u32(key("eos_token_id"), static_cast<uint32_t>(*eos_id)));
  if (unk_id) entries.push_back(gguf_u32(key("unknown_token_id"), static_cast<uint32_t>(*unk_id)));
  if (pad_id) entries.push_back(gguf_u32(key("padding_token_id"), static_cast<uint32_t>(*pad_id)));
  // llama.cpp knows most ends of turns by their text; two others have a key.
  const std::vector<int32_t> known = end_tokens_by_text(*this);
  const char* keys[] = {"eot_token_id", "eom_token_id"};
  size_t used = 0;
  for (const int32_t id : stop_ids) {
    if (!std::binary_search(known.begin(), known.end(), id) && used < std::size(keys)) entries.push_back(gguf_u32(key(keys[used++]), static_cast<uint32_t>(id)));
  }
  entries.push_back(gguf_bool(key("add_bos_token"), add_bos));
  entries.push_back(gguf_bool(key("add_eos_token"), add_eos));
  return entries;
}

std::vector<std::string> ByteLevelBpe::gguf_differences() const {
  std::vector<std::string> found;
  if (!parts_.normalizer.does_nothing()) found.push_back(fmt::format("the normaliser {}: llama.cpp does not normalise text", parts_.normalizer.to_json().dump()));
  for (const SplitRule& rule : parts_.split_rules) {
    if (rule.kind == SplitRule::Kind::kDigits) found.push_back("13 digits that are new in Unicode 17 (Tolong Siki, Chisoi): llama.cpp does not take them for digits");
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
