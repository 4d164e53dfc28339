// Byte-level BPE, the tokenizer of GPT-2, Qwen, Llama 3, SmolLM, DeepSeek, gpt-oss: text -> added tokens, normaliser, pieces,
// bytes, merges -> ids. Reference: the Hugging Face library tokenizers 0.23 (for GGUF files: llama.cpp).
#pragma once
#include <array>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "data/tokenizers/added_tokens.h"
#include "data/tokenizers/bpe_model.h"
#include "data/tokenizers/normalizer.h"
#include "data/tokenizers/pre_tokenizer.h"
#include "data/tokenizers/tokenizer.h"

namespace graft {

// What a tokenizer.json and a GGUF file's metadata have in common.
struct ByteLevelBpeParts {
  std::string origin;                                        // the file, for messages
  std::vector<std::pair<std::string, int32_t>> vocabulary;   // spelled in the byte alphabet; ids may have holes
  std::vector<std::pair<std::string, std::string>> merges;   // in order of rank
  std::string unknown_token;                                 // for bytes without a token; empty: they are left out
  bool fuse_unknown = false;
  bool ignore_merges = false;                                // a piece that is a token is that token
  std::vector<AddedToken> added_tokens;
  Normalizer normalizer;
  std::vector<SplitRule> split_rules;
  std::vector<int32_t> before, after;                        // ids that add_special puts around the text
};

class ByteLevelBpe : public Tokenizer {
 public:
  // UserError when the parts contradict each other (a merge of unknown tokens, two tokens of one id, ...).
  explicit ByteLevelBpe(ByteLevelBpeParts parts);

  std::vector<int32_t> encode(std::string_view text, bool add_special) const override;
  std::string token_bytes(int32_t id) const override;
  bool is_special(int32_t id) const override;
  int64_t vocab_size() const override { return static_cast<int64_t>(spellings_.size()); }
  std::optional<int32_t> token_id(std::string_view token) const override;
  nlohmann::ordered_json to_tokenizer_json() const override;
  std::vector<GgufEntry> to_gguf_metadata(int64_t num_rows = 0) const override;
  std::vector<std::string> gguf_differences() const override;

 private:
  std::string_view gguf_pre_name() const;
  bool merges_reach_every_token() const;
  void index_vocabulary();
  void add_tokens();
  std::vector<BpeModel::Merge> read_merges() const;
  void encode_text(std::string_view text, std::vector<int32_t>& ids) const;
  void encode_piece(std::string_view piece, std::vector<int32_t>& ids) const;
  std::string make_fingerprint() const;

  ByteLevelBpeParts parts_;                                  // vocabulary and merges are moved out of it, see below
  std::vector<std::string> spellings_;                       // by id; empty: a hole
  std::unordered_map<std::string_view, int32_t> ids_;        // spelling -> id of the vocabulary, into spellings_
  std::vector<std::string> bytes_;                           // by id: what the token stands for
  struct StringHash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  std::unordered_map<std::string, int32_t, StringHash, std::equal_to<>> ids_of_bytes_;  // only with ignore_merges
  std::unordered_map<int32_t, const AddedToken*> added_;     // by id, into parts_.added_tokens
  std::unordered_map<std::string_view, int32_t> added_ids_;
  std::vector<BpeModel::Merge> merges_;
  BpeModel model_;
  PreTokenizer pre_tokenizer_;
  AddedTokenFinder in_text_, in_normalized_text_;
  uint64_t cache_key_ = 0;                                   // of this object in each thread's cache of pieces
};

// From the parsed tokenizer.json alone; `origin` is its path. bos_id and the like stay unset (see load_tokenizer).
ByteLevelBpeParts read_tokenizer_json(const nlohmann::json& file, const std::string& origin);

}  // namespace graft
