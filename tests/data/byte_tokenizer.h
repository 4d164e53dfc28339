// A tokenizer for tests: one token per byte, and the two special tokens of ChatML.
#pragma once
#include <string>
#include <vector>

#include "checkpoints/gguf_file.h"
#include "data/templates/conversation.h"
#include "data/tokenizers/tokenizer.h"

namespace graft::test {

class ByteTokenizer : public Tokenizer {
 public:
  static constexpr int32_t kStart = 256, kEnd = 257;
  ByteTokenizer() {
    eos_id = kEnd;
    fingerprint = "bytes";
    special_tokens["eos_token"] = "<|im_end|>";
  }
  std::vector<int32_t> encode(std::string_view text, bool) const override {
    std::vector<int32_t> ids;
    for (size_t at = 0; at < text.size();) {
      const bool start = text.substr(at).starts_with("<|im_start|>"), end = text.substr(at).starts_with("<|im_end|>");
      ids.push_back(start ? kStart : end ? kEnd : static_cast<unsigned char>(text[at]));
      at += start ? 12 : end ? 10 : 1;
    }
    return ids;
  }
  std::string token_bytes(int32_t id) const override {
    return id == kStart ? "<|im_start|>" : id == kEnd ? "<|im_end|>" : std::string(1, static_cast<char>(id));
  }
  bool is_special(int32_t id) const override { return id >= 256; }
  int64_t vocab_size() const override { return 258; }
  nlohmann::ordered_json to_tokenizer_json() const override { return {}; }
  std::vector<GgufEntry> to_gguf_metadata(int64_t) const override { return {}; }
  std::vector<std::string> gguf_differences() const override { return {}; }
  std::optional<int32_t> token_id(std::string_view token) const override {
    if (token == "<|im_start|>") return kStart;
    if (token == "<|im_end|>") return kEnd;
    return std::nullopt;
  }
};

inline const char* const kChatMl =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% "
    "endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

inline TemplateContext byte_context() {
  return {std::make_shared<ByteTokenizer>(), std::make_shared<ChatTemplate>(kChatMl, "chatml")};
}

}  // namespace graft::test
