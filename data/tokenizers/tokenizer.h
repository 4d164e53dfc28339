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

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Special (added) tokens that occur in the text are recognised. add_special: BOS/EOS as the tokenizer's own post-processor
  // (or GGUF add_bos_token/add_eos_token) adds them. `text` must be UTF-8 (callers validate rows; invalid bytes still encode,
  // byte for byte, where the vocabulary is byte-level).
  virtual std::vector<int32_t> encode(std::string_view text, bool add_special) const = 0;
  // Raw bytes of one token: special tokens give their text; byte-level tokens may be part of a UTF-8 sequence.
  virtual std::string token_bytes(int32_t id) const = 0;
  // Concatenated bytes; skip_special leaves special tokens out.
  std::string decode(const std::vector<int32_t>& ids, bool skip_special = false) const;

  virtual bool is_special(int32_t id) const = 0;
  virtual int64_t vocab_size() const = 0;                        // ids are below this
  virtual std::optional<int32_t> token_id(std::string_view token) const = 0;   // exact content of a vocabulary entry or added token
  std::optional<int32_t> bos_id, eos_id, pad_id, unk_id;
  // Named special tokens for templates: bos_token, eos_token, pad_token, unk_token, and what the config adds; null ones absent.
  nlohmann::ordered_json special_tokens = nlohmann::ordered_json::object();
  // Ids that end a turn beside eos_id (generation_config.json's eos list; GGUF eot/eom ids; end-of-turn tokens that llama.cpp recognises by text).
  std::vector<int32_t> stop_ids;
  // SHA-256 (hex) over everything that decides encode(): vocabulary, merges, added tokens, pre-tokenizer, flags.
  std::string fingerprint;
};

// A model directory (tokenizer.json, tokenizer_config.json, special_tokens_map.json, generation_config.json) or a .gguf file.
std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& model);
std::shared_ptr<const Tokenizer> load_tokenizer(const GgufFile& file);

}  // namespace graft
