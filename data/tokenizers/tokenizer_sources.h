// The places a tokenizer is read from. One function each.
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "data/tokenizers/tokenizer_parts.h"

namespace graft {

// tokenizer.json with what tokenizer_config.json, special_tokens_map.json and generation_config.json add to it, as
// transformers 5 combines them.
std::shared_ptr<const Tokenizer> load_tokenizer_directory(const std::filesystem::path& directory);

// True or false where `config` has one at the key, else `absent`: transformers reads past other values.
inline bool flag(const nlohmann::json& config, const char* key, bool absent) {
  const auto found = config.find(key);
  return found != config.end() && found->is_boolean() ? found->get<bool>() : absent;
}

std::string read_whole_file(const std::filesystem::path& path);
// A sentencepiece model. space_at_start_only: transformers' "legacy": false.
TokenizerParts read_sentencepiece_model(std::string_view file, const std::string& origin, bool space_at_start_only = false);
bool is_tiktoken_file(std::string_view file);
// Without split rules, added tokens and normaliser, which the file does not say.
TokenizerParts read_tiktoken_file(std::string_view file, const std::string& origin);
// tokenizer.json, else the tiktoken or sentencepiece file of the directory with what the tokenizer's class adds to it. `config` is
// tokenizer_config.json.
TokenizerParts read_vocabulary_file(const std::filesystem::path& directory, const nlohmann::json& config);

// Texts at which llama.cpp ends generation, beside <|end|>, whatever the file says of them: ends of turns and documents, and the
// fill-in-the-middle separators.
inline constexpr const char* kEndTexts[] = {
    "<|eot_id|>", "<|im_end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>",
    "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>",
    "<｜end▁of▁sentence｜>", "[e~[", "<|file_sep|>", "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>",
    "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"};

// What tokenizer.ggml.pre means to llama.cpp: how it splits, and what goes with the name.
struct GgufPre {
  std::string_view name;
  std::vector<SplitRule> rules;
  bool ignore_merges = false;
  bool add_bos = false;  // when the file does not say
};
const std::vector<GgufPre>& known_gguf_pre();

}  // namespace graft
