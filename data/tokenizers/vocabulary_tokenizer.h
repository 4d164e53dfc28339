// What all tokenizers do alike: text -> added tokens, normaliser, pieces; ids and their bytes.
#pragma once
#include <string>
#include <unordered_map>
#include <vector>

#include "data/tokenizers/merge_table.h"
#include "data/tokenizers/tokenizer_parts.h"

namespace graft {

class Sha256;

class VocabularyTokenizer : public Tokenizer {
 public:
  std::vector<int32_t> encode(std::string_view text, bool add_special) const override;
  std::string token_bytes(int32_t id) const override;
  bool is_special(int32_t id) const override;
  int64_t vocab_size() const override { return static_cast<int64_t>(spellings_.size()); }
  std::optional<int32_t> token_id(std::string_view token) const override;

 protected:
  explicit VocabularyTokenizer(TokenizerParts parts) : parts_(std::move(parts)) {}

  // Appends the ids of ordinary text. at_start: the whole text begins with it.
  virtual void encode_text(std::string_view text, bool at_start, std::vector<int32_t>& ids) const = 0;

  // In this order, by the constructor of a kind. index_vocabulary fills all that is by id; `bytes_of` says what a spelling stands for.
  void index_vocabulary(std::string (*bytes_of)(const std::string& spelling));
  std::vector<Merge> read_merges() const;
  void add_tokens(std::string (*bytes_of)(const std::string& content, const std::string& spelling));

  int32_t unknown_id() const;  // of parts_.unknown_token; UserError when the vocabulary lacks it
  void hash_common(Sha256& hash, std::string_view kind) const;

  // For exports.
  nlohmann::ordered_json tokenizer_json(nlohmann::ordered_json model, nlohmann::ordered_json decoder, nlohmann::ordered_json processor) const;
  nlohmann::ordered_json template_processor(nlohmann::ordered_json without) const;
  void need_utf8(size_t id) const;
  // model, pre, tokens, their types and, if asked for, scores; then, with add_gguf_ids, the special ids.
  std::vector<GgufEntry> gguf_vocabulary(const char* model, const std::string& pre, int64_t num_rows, bool with_scores) const;
  virtual int32_t gguf_type(size_t) const { return 1; }  // of a token that was not added
  virtual bool found_by_merges(size_t) const { return false; }  // an added token that llama.cpp had better take for an ordinary one
  virtual std::string gguf_text(size_t id) const { return spellings_[id]; }
  void add_gguf_ids(std::vector<GgufEntry>& entries) const;

  TokenizerParts parts_;                                     // vocabulary, scores and merges are moved out of it
  std::vector<std::string> spellings_;                       // by id; empty: a hole
  std::vector<std::string> bytes_;                           // by id: what the token stands for
  std::vector<double> scores_;                               // by id, where there are scores
  std::vector<bool> unmatched_, always_taken_;               // by id
  std::unordered_map<std::string_view, int32_t> ids_;        // spelling -> id of the vocabulary, into spellings_
  std::unordered_map<int32_t, const AddedToken*> added_;     // by id, into parts_.added_tokens
  std::unordered_map<std::string_view, int32_t> added_ids_;
  AddedTokenFinder in_text_, in_normalized_text_;
};

}  // namespace graft
