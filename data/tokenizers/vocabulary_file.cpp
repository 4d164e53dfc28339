// Which file of a model directory holds the vocabulary, and what the classes of tokenizers without tokenizer.json do in Python code that
// comes with the model: their split pattern, normaliser, special tokens, and what they put around a text.
#include <algorithm>
#include <fstream>
#include <iterator>

#include "checkpoints/strict_json.h"
#include "data/tokenizers/scanners.h"
#include "data/tokenizers/tokenizer_sources.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

using nlohmann::json;

std::vector<std::string> numbered(const char* before, int count) {
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) names.push_back(fmt::format("{}{}|>", before, i));
  return names;
}
std::vector<std::string> joined(std::vector<std::string> first, const std::vector<std::string>& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

struct TiktokenClass {
  std::string_view name;                    // tokenizer_class
  std::string_view pattern;
  bool nfc = false;
  std::vector<std::string> special_tokens;  // behind the vocabulary, in this order; added_tokens_decoder names others
  int reserved = 0;                         // so many ids behind the vocabulary are <|reserved_token_ID|> where the config names none
  bool add_bos = false;
  std::vector<std::string> before;          // put before a text
  std::vector<std::pair<std::string, std::string>> named;
};

const std::vector<TiktokenClass>& tiktoken_classes() {
  static const std::vector<TiktokenClass> all = {
      {.name = "TikTokenTokenizer", .pattern = kKimiPattern, .reserved = 256, .named = {{"bos_token", "[BOS]"}, {"eos_token", "[EOS]"}}},  // Kimi, Moonlight
      {.name = "ChatGLM4Tokenizer", .pattern = kLlama3Pattern, .before = {"[gMASK]", "<sop>"}},
      {.name = "ChatGLMTokenizer", .pattern = kLlama3Pattern, .before = {"[gMASK]", "<sop>"}},
      {.name = "HYTokenizer", .pattern = kQwen2Pattern, .nfc = true,
       .special_tokens = joined({"<|endoftext|>", "<|startoftext|>", "<|bos|>", "<|eos|>", "<|pad|>"}, numbered("<|extra_", 204)), .add_bos = true,
       .named = {{"bos_token", "<|startoftext|>"}, {"eos_token", "<|endoftext|>"}, {"pad_token", "<|pad|>"}}},
      {.name = "QWenTokenizer", .pattern = kQwen2Pattern, .nfc = true, .special_tokens = joined({"<|endoftext|>", "<|im_start|>", "<|im_end|>"}, numbered("<|extra_", 205)),
       .named = {{"eos_token", "<|endoftext|>"}}}};
  return all;
}

std::string class_of(const json& config) {
  std::string name = config.value("tokenizer_class", json()).is_string() ? config["tokenizer_class"].get<std::string>() : "";
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  return name;
}

int32_t id_of(const TokenizerParts& parts, const std::string& token) {
  for (const AddedToken& added : parts.added_tokens) {
    if (added.content == token) return added.id;
  }
  return -1;
}

// Special tokens that the class names are added behind the vocabulary unless the config gives their ids.
void add_special(TokenizerParts& parts, int32_t id, const std::string& content, const json& decoder) {
  if (decoder.is_object() && decoder.contains(std::to_string(id))) {
    const json& entry = decoder[std::to_string(id)];
    if (entry.is_object() && entry.value("content", json()).is_string()) {
      parts.added_tokens.push_back({.id = id, .content = entry["content"].get<std::string>(), .special = true});
      return;
    }
  }
  if (!content.empty() && id_of(parts, content) < 0) parts.added_tokens.push_back({.id = id, .content = content, .special = true});
}

void put_before(TokenizerParts& parts, const std::vector<std::string>& tokens) {
  for (const std::string& token : tokens) {
    if (id_of(parts, token) >= 0) parts.before.push_back(id_of(parts, token));
  }
}

TokenizerParts tiktoken_parts(const std::string& file, const std::filesystem::path& path, const json& config) {
  const std::string name = class_of(config);
  const auto& classes = tiktoken_classes();
  const auto found = std::find_if(classes.begin(), classes.end(), [&](const TiktokenClass& known) { return known.name == name; });
  if (found == classes.end()) {
    std::string known;
    for (const TiktokenClass& one : classes) known += (known.empty() ? "" : ", ") + std::string(one.name);
    fail("tokenizers", "expected a tokenizer_class of {} beside a tiktoken file, which does not say how text is split, got '{}' ({}) — save the tokenizer as tokenizer.json with transformers",
         known, name, path.string());
  }
  TokenizerParts parts = read_tiktoken_file(file, path.string());
  parts.split_rules = {{.pattern = std::string(found->pattern)}, {.kind = SplitRule::Kind::kByteLevel, .use_regex = false}};
  if (found->nfc) parts.normalizer = Normalizer(json{{"type", "NFC"}});
  const json decoder = config.value("added_tokens_decoder", json());
  int32_t first = 0, last = -1;
  for (const auto& [spelling, id] : parts.vocabulary) first = std::max(first, id + 1);
  if (decoder.is_object()) {
    for (const auto& [key, value] : decoder.items()) {
      if (key.size() <= 8 && !key.empty() && key.find_first_not_of("0123456789") == std::string::npos) last = std::max(last, std::stoi(key));
    }
  }
  last = std::max(last, first + std::max(static_cast<int32_t>(found->special_tokens.size()), found->reserved) - 1);
  if (last - first > 4096) fail("tokenizers", "expected special tokens behind the vocabulary of {}, got the id {} ({}) — the files belong to different models", first, last, path.string());
  for (int32_t id = first; id <= last; ++id) {
    const auto i = static_cast<size_t>(id - first);
    add_special(parts, id, i < found->special_tokens.size() ? found->special_tokens[i] : id - first < found->reserved ? fmt::format("<|reserved_token_{}|>", id) : "", decoder);
  }
  put_before(parts, found->before);
  for (const auto& [key, token] : found->named) {
    if (id_of(parts, token) >= 0) parts.named.emplace_back(key, token);
  }
  parts.add_bos = flag(config, "add_bos_token", found->add_bos);
  parts.add_eos = flag(config, "add_eos_token", false);
  return parts;
}

TokenizerParts sentencepiece_parts(const std::string& file, const std::filesystem::path& path, const json& config) {
  TokenizerParts parts = read_sentencepiece_model(file, path.string(), !flag(config, "legacy", true));
  const std::string name = class_of(config);
  if (name == "ChatGLMTokenizer") {
    // ChatGLM2 and 3: control tokens behind the pieces; the roles are ChatGLM3's.
    const json decoder = config.value("added_tokens_decoder", json());
    std::vector<std::string> tokens = {"[MASK]", "[gMASK]", "[sMASK]", "sop", "eop"};
    const json from = config.value("name_or_path", json());
    if (decoder.is_object() || (from.is_string() && from.get_ref<const std::string&>().find("chatglm3") != std::string::npos)) {
      tokens = joined(tokens, {"<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"});
    }
    auto id = static_cast<int32_t>(parts.vocabulary.size());
    for (const std::string& token : tokens) add_special(parts, id++, token, decoder);
    put_before(parts, {"[gMASK]", "sop"});
  }
  const bool llama = name == "LlamaTokenizer" || name == "CodeLlamaTokenizer" || name == "GemmaTokenizer" || name == "PanguTokenizer";
  parts.add_bos = flag(config, "add_bos_token", llama);
  parts.add_eos = flag(config, "add_eos_token", false);
  return parts;
}

}  // namespace

std::string read_whole_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail("tokenizers", "expected a readable file, got none ({}) — check its permissions", path.string());
  return std::string((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
}

TokenizerParts read_vocabulary_file(const std::filesystem::path& directory, const json& config) {
  if (const auto path = directory / "tokenizer.json"; std::filesystem::exists(path)) {
    return read_tokenizer_json(parse_strict_json(read_whole_file(path), path, "the file", 64), path.string());
  }
  for (const char* name : {"tiktoken.model", "hunyuan.tiktoken", "hy.tiktoken", "qwen.tiktoken", "tokenizer.model"}) {
    const auto path = directory / name;
    if (!std::filesystem::exists(path)) continue;
    const std::string file = read_whole_file(path);
    return is_tiktoken_file(file) ? tiktoken_parts(file, path, config) : sentencepiece_parts(file, path, config);
  }
  fail("tokenizers", "expected tokenizer.json, tokenizer.model, tiktoken.model, hunyuan.tiktoken, hy.tiktoken or qwen.tiktoken, got none ({}) — save the tokenizer with transformers' save_pretrained",
       directory.string());
}

}  // namespace graft
