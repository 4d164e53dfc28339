// A byte-level tokenizer whose special tokens are those that a template writes: one token per byte, one per special token.
#pragma once
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "checkpoints/gguf_file.h"
#include "data/tokenizers/tokenizer.h"

namespace graft::test {

class SpecialTokenTokenizer : public Tokenizer {
 public:
  explicit SpecialTokenTokenizer(std::vector<std::string> specials) : specials_(std::move(specials)) {
    std::sort(specials_.begin(), specials_.end(), [](const auto& a, const auto& b) { return a.size() > b.size(); });
  }
  std::vector<int32_t> encode(std::string_view text, bool) const override {
    std::vector<int32_t> ids;
    for (size_t at = 0; at < text.size();) {
      const auto found =
          std::find_if(specials_.begin(), specials_.end(), [&](const std::string& s) { return text.substr(at).starts_with(s); });
      if (found == specials_.end()) {
        ids.push_back(static_cast<unsigned char>(text[at++]));
      } else {
        ids.push_back(256 + static_cast<int32_t>(found - specials_.begin()));
        at += found->size();
      }
    }
    return ids;
  }
  std::string token_bytes(int32_t id) const override {
    return id < 256 ? std::string(1, static_cast<char>(id)) : specials_[static_cast<size_t>(id - 256)];
  }
  bool is_special(int32_t id) const override { return id >= 256; }
  int64_t vocab_size() const override { return 256 + static_cast<int64_t>(specials_.size()); }
  nlohmann::ordered_json to_tokenizer_json() const override { return {}; }
  std::vector<GgufEntry> to_gguf_metadata(int64_t) const override { return {}; }
  std::vector<std::string> gguf_differences() const override { return {}; }
  std::optional<int32_t> token_id(std::string_view token) const override {
    const auto found = std::find(specials_.begin(), specials_.end(), token);
    return found == specials_.end() ? std::nullopt : std::optional(256 + static_cast<int32_t>(found - specials_.begin()));
  }

 private:
  std::vector<std::string> specials_;
};

}  // namespace graft::test
