#include "data/tokenizers/tokenizer.h"

#include <algorithm>

#include "checkpoints/gguf_file.h"
#include "data/tokenizers/byte_level_bpe.h"
#include "data/tokenizers/sentencepiece_tokenizer.h"
#include "data/tokenizers/tokenizer_sources.h"
#include "kernels/common/error.h"

namespace graft {

std::string Tokenizer::decode(const std::vector<int32_t>& ids, bool skip_special) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (!skip_special || !is_special(id)) bytes += token_bytes(id);
  }
  if (drops_first_space && bytes.starts_with(' ')) bytes.erase(0, 1);
  return bytes;
}

nlohmann::ordered_json Tokenizer::to_tokenizer_config() const {
  nlohmann::ordered_json config = special_tokens;
  config["clean_up_tokenization_spaces"] = false;
  config["model_max_length"] = int64_t{1} << 30;
  // The class that takes everything from tokenizer.json and rebuilds nothing.
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  return config;
}

std::shared_ptr<Tokenizer> make_tokenizer(TokenizerParts parts) {
  if (parts.model == TokenModel::kByteLevelBpe) return std::make_shared<ByteLevelBpe>(std::move(parts));
  return std::make_shared<SentencepieceTokenizer>(std::move(parts));
}

std::vector<int32_t> end_tokens(const Tokenizer& tokenizer) {
  std::vector<int32_t> ids = tokenizer.stop_ids;
  if (tokenizer.eos_id) ids.push_back(*tokenizer.eos_id);
  return ids;
}

std::vector<int32_t> end_tokens_by_text(const Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  const auto add = [&](const char* text) {
    if (const auto id = tokenizer.token_id(text)) ids.push_back(*id);
  };
  for (const char* text : kEndTexts) add(text);
  // gpt-oss and Solar go on after <|end|>: there it closes a channel, not the turn.
  const auto has = [&](const char* text) { return tokenizer.token_id(text).has_value(); };
  const bool channels = (has("<|return|>") && has("<|call|>")) || ((has("<|call|>") || has("<|calls|>")) && has("<|flush|>"));
  if (!channels) add("<|end|>");
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& model) {
  if (std::filesystem::is_directory(model)) return load_tokenizer_directory(model);
  if (model.extension() == ".gguf") return load_tokenizer(GgufFile(model));
  if (model.filename() == "tokenizer.json") return load_tokenizer_directory(model.parent_path());
  fail("tokenizers", "expected a model directory or a .gguf file, got '{}' — name the directory that holds tokenizer.json", model.string());
}

}  // namespace graft
