// The places a tokenizer is read from. One function each; further kinds (sentencepiece, tiktoken) become further Tokenizers here.
#pragma once
#include <filesystem>
#include <memory>
#include <string_view>

#include "data/tokenizers/byte_level_bpe.h"

namespace graft {

// tokenizer.json with what tokenizer_config.json, special_tokens_map.json and generation_config.json add to it, as
// transformers 5 combines them.
std::shared_ptr<const Tokenizer> load_tokenizer_directory(const std::filesystem::path& directory);

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
