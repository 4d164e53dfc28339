// Byte-level BPE, the tokenizer of GPT-2, Qwen, Llama 3, SmolLM, DeepSeek, gpt-oss, and of tiktoken files: text -> added tokens,
// normaliser, pieces, bytes, merges -> ids. Reference: the Hugging Face library tokenizers 0.23 (for GGUF files: llama.cpp).
#pragma once
#include <string>
#include <unordered_map>
#include <vector>

#include "data/tokenizers/bpe_model.h"
#include "data/tokenizers/piece_cache.h"
#include "data/tokenizers/vocabulary_tokenizer.h"

namespace graft {

class ByteLevelBpe : public VocabularyTokenizer {
 public:
  explicit ByteLevelBpe(TokenizerParts parts);

  nlohmann::ordered_json to_tokenizer_json() const override;
  std::vector<GgufEntry> to_gguf_metadata(int64_t num_rows = 0) const override;
  std::vector<std::string> gguf_differences() const override;

 private:
  std::string_view gguf_pre_name() const;
  bool merges_reach_every_token() const;
  void encode_text(std::string_view text, bool at_start, std::vector<int32_t>& ids) const override;
  void encode_piece(std::string_view piece, std::vector<int32_t>& ids) const;
  std::string make_fingerprint() const;

  struct StringHash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  std::unordered_map<std::string, int32_t, StringHash, std::equal_to<>> ids_of_bytes_;  // only with ignore_merges
  std::vector<Merge> merges_;
  BpeModel model_;
  PreTokenizer pre_tokenizer_;
  PieceCacheKey cache_;
};

}  // namespace graft
