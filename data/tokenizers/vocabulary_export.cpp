// What tokenizer.json and GGUF metadata say of every kind of tokenizer.
#include <algorithm>

#include "checkpoints/gguf_writer.h"
#include "data/tokenizers/tokenizer_sources.h"
#include "data/tokenizers/utf8.h"
#include "data/tokenizers/vocabulary_tokenizer.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

using nlohmann::ordered_json;

ordered_json added_token_to_json(const AddedToken& token) {
  return {{"id", token.id}, {"content", token.content}, {"single_word", token.single_word}, {"lstrip", token.left_strip},
          {"rstrip", token.right_strip}, {"normalized", token.normalized}, {"special", token.special}};
}

std::string key(const char* name) { return std::string("tokenizer.ggml.") + name; }

}  // namespace

void VocabularyTokenizer::need_utf8(size_t id) const {
  if (to_valid_utf8(spellings_[id]) != spellings_[id]) fail("tokenizers", "expected tokens in UTF-8, got bytes that are not in token {} ({}) — JSON cannot hold it", id, parts_.origin);
}

ordered_json VocabularyTokenizer::template_processor(ordered_json without) const {
  if (parts_.before.empty() && parts_.after.empty()) return without;
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
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", tokens}};
}

ordered_json VocabularyTokenizer::tokenizer_json(ordered_json model, ordered_json decoder, ordered_json processor) const {
  ordered_json added = ordered_json::array();
  for (const AddedToken& token : parts_.added_tokens) added.push_back(added_token_to_json(token));
  ordered_json file = {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}};
  file["added_tokens"] = std::move(added);
  file["normalizer"] = parts_.normalizer.to_json();
  file["pre_tokenizer"] = split_rules_to_json(parts_.split_rules);
  file["post_processor"] = template_processor(std::move(processor));
  file["decoder"] = std::move(decoder);
  file["model"] = std::move(model);
  return file;
}

std::vector<GgufEntry> VocabularyTokenizer::gguf_vocabulary(const char* model, const std::string& pre, int64_t num_rows, bool with_scores) const {
  if (num_rows != 0 && vocab_size() > num_rows) {
    fail("tokenizers", "expected at most {} tokens, the rows of the embedding, got {} ({}; the last is '{}') — the tokenizer has tokens that the model lacks; remove them or take the model's own tokenizer",
         num_rows, vocab_size(), parts_.origin, spellings_.back());
  }
  std::vector<std::string> tokens;
  for (size_t id = 0; id < spellings_.size(); ++id) tokens.push_back(gguf_text(id));
  std::vector<int32_t> types;
  std::vector<float> scores(static_cast<size_t>(std::max(num_rows, vocab_size())), -10000.0f);  // llama.cpp's converter gives unused tokens this score
  tokens.resize(scores.size());
  for (size_t id = 0; id < tokens.size(); ++id) {
    const auto added = added_.find(static_cast<int32_t>(id));
    // unused, normal, control, user-defined
    types.push_back(tokens[id].empty() ? 5 : added == added_.end() || found_by_merges(id) ? gguf_type(id) : added->second->special ? 3 : 4);
    if (tokens[id].empty()) tokens[id] = fmt::format("[PAD{}]", id);
    if (id < scores_.size()) scores[id] = static_cast<float>(scores_[id]);
  }
  std::vector<GgufEntry> entries = {gguf_string(key("model"), model), gguf_string(key("pre"), pre), gguf_strings(key("tokens"), std::move(tokens))};
  if (with_scores) entries.push_back(gguf_f32s(key("scores"), std::move(scores)));
  entries.push_back(gguf_i32s(key("token_type"), std::move(types)));
  return entries;
}

void VocabularyTokenizer::add_gguf_ids(std::vector<GgufEntry>& entries) const {
  const auto only = [&](const std::vector<int32_t>& ids, std::optional<int32_t> wanted, const char* what) {
    if (ids.empty()) return false;
    if (ids.size() != 1 || wanted != ids[0]) {
      fail("tokenizers", "expected nothing or the {} token around the text, got {} tokens, the first '{}' ({}) — GGUF cannot say this", what, ids.size(),
           spellings_[static_cast<size_t>(ids[0])], parts_.origin);
    }
    return true;
  };
  const bool add_bos = only(parts_.before, bos_id, "BOS"), add_eos = only(parts_.after, eos_id, "EOS");
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
}

}  // namespace graft
