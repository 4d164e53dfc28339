// BPE over characters and unigram, the tokenizers of Llama 2, Mistral, Gemma, Phi-3, ChatGLM, ERNIE, openPangu, T5. References: the Hugging
// Face library tokenizers for tokenizer.json, the sentencepiece library for .model files, llama.cpp for GGUF files.
#pragma once
#include "data/tokenizers/piece_cache.h"
#include "data/tokenizers/symbol_bpe.h"
#include "data/tokenizers/unigram_model.h"
#include "data/tokenizers/vocabulary_tokenizer.h"

namespace graft {

class SentencepieceTokenizer : public VocabularyTokenizer {
 public:
  explicit SentencepieceTokenizer(TokenizerParts parts);

  nlohmann::ordered_json to_tokenizer_json() const override;
  std::vector<GgufEntry> to_gguf_metadata(int64_t num_rows = 0) const override;
  std::vector<std::string> gguf_differences() const override;

 private:
  void encode_text(std::string_view text, bool at_start, std::vector<int32_t>& ids) const override;
  void encode_words(std::string_view piece, std::vector<int32_t>& ids) const;
  void encode_piece(std::string_view piece, std::vector<int32_t>& ids) const;
  ByteTokens byte_tokens() const;
  UnigramModel make_unigram() const;
  std::string make_fingerprint() const;
  struct GgufForm {  // what llama.cpp can say of the way from text to pieces
    bool space_before = false, remove_extra = false;
    bool metaspace = false, only_at_start = false;  // the space is put by a Metaspace step
    std::shared_ptr<const Charsmap> map;
  };
  GgufForm gguf_form() const;
  int32_t gguf_type(size_t id) const override;
  std::string gguf_text(size_t id) const override;
  bool found_by_merges(size_t id) const override;
  bool is_bpe() const { return parts_.model == TokenModel::kSymbolBpe; }
  bool is_by_score() const { return is_bpe() && !scores_.empty(); }

  SymbolBpe bpe_;
  UnigramModel unigram_;
  PreTokenizer pre_tokenizer_;
  PieceCacheKey cache_;
};

}  // namespace graft
