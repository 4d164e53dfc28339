// Text to token ids and back. Identical to the reference libraries (tokenizers, llama.cpp) or an error at load time.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace graft {

class GgufFile;
struct GgufEntry;

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Special (added) tokens that occur in the text are recognised. add_special: BOS/EOS as the tokenizer's own post-processor
  // (or GGUF add_bos_token/add_eos_token) adds them. `text` must be UTF-8 (callers validate rows; invalid bytes still encode,
  // byte for byte, where the vocabulary is byte-level).
  virtual std::vector<int32_t> encode(std::string_view text, bool add_special) const = 0;
  // Raw bytes of one token: special tokens give their text; byte-level tokens may be part of a UTF-8 sequence.
  virtual std::string token_bytes(int32_t id) const = 0;
  // Concatenated bytes (see drops_first_space); skip_special leaves special tokens out.
  std::string decode(const std::vector<int32_t>& ids, bool skip_special = false) const;

  virtual bool is_special(int32_t id) const = 0;
  virtual int64_t vocab_size() const = 0;                        // ids are below this
  // The files of a merged export in Hugging Face layout, which transformers loads to the same ids. UserError where that is
  // impossible, with the reason.
  virtual nlohmann::ordered_json to_tokenizer_json() const = 0;
  nlohmann::ordered_json to_tokenizer_config() const;            // tokenizer_config.json, without a chat template
  // The tokenizer.ggml.* entries of a GGUF export, without tokenizer.chat_template. UserError where llama.cpp has no
  // pre-tokenizer that splits as this one. num_rows: rows of the embedding, which GGUF wants as many tokens of; the surplus
  // is filled with unused "[PAD<id>]" (0: no more than vocab_size).
  virtual std::vector<GgufEntry> to_gguf_metadata(int64_t num_rows = 0) const = 0;
  // Where llama.cpp will encode some texts differently after such an export, in words, one each; empty when nowhere.
  virtual std::vector<std::string> gguf_differences() const = 0;
  virtual std::optional<int32_t> token_id(std::string_view token) const = 0;   // exact content of a vocabulary entry or added token
  std::optional<int32_t> bos_id, eos_id, pad_id, unk_id;
  // Decoded text loses its first character where that is a space: encoding had put it there.
  bool drops_first_space = false;
  // Named special tokens for templates: bos_token, eos_token, pad_token, unk_token, and what the config adds; null ones absent.
  nlohmann::ordered_json special_tokens = nlohmann::ordered_json::object();
  // Ids that end a turn beside eos_id (generation_config.json's eos list; GGUF eot/eom ids; end-of-turn tokens that llama.cpp recognises by text).
  std::vector<int32_t> stop_ids;
  // SHA-256 (hex) over everything that decides encode(): vocabulary, merges, added tokens, pre-tokenizer, flags.
  std::string fingerprint;
};

// Ids that are end-of-generation for llama.cpp by their text alone ("<|im_end|>", "<|eot_id|>", ...), ascending.
std::vector<int32_t> end_tokens_by_text(const Tokenizer& tokenizer);
// Those that the tokenizer names: stop_ids and eos_id.
std::vector<int32_t> end_tokens(const Tokenizer& tokenizer);

// A model directory (tokenizer.json, tokenizer_config.json, special_tokens_map.json, generation_config.json) or a .gguf file.
std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& model);
std::shared_ptr<const Tokenizer> load_tokenizer(const GgufFile& file);

}  // namespace graft
