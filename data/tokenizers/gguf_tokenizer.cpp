// tokenizer.ggml.* of a GGUF file -> a Tokenizer with llama.cpp's ids. So there is no Unicode normalisation here, although some
// of these models have one in their tokenizer.json: what is trained on a GGUF base is served by llama.cpp.
#include <algorithm>
#include <limits>
#include <optional>
#include <unordered_map>

#include "checkpoints/gguf_file.h"
#include "data/tokenizers/byte_alphabet.h"
#include "data/tokenizers/first_bytes.h"
#include "data/tokenizers/tokenizer_sources.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

enum TokenType : int64_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

// Tokens that llama.cpp takes for control tokens by their text, whatever the file says. (So too end_tokens_by_text.)
constexpr const char* kControlTexts[] = {"<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "<|code_prefix|>", "<|prefix|>",
                                         "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "<|code_suffix|>", "<|suffix|>",
                                         "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "<|code_middle|>", "<|middle|>"};

class Reader {
 public:
  explicit Reader(const GgufFile& file) : file_(file), origin_(file.path().string()) {}

  std::shared_ptr<const Tokenizer> read() {
    const std::string model = file_.get_string("tokenizer.ggml.model").value_or("");
    if (model != "gpt2" && model != "llama" && model != "t5") {
      fail("tokenizers", "expected tokenizer.ggml.model 'gpt2' (byte-level BPE), 'llama' (sentencepiece BPE) or 't5' (unigram), got '{}' ({}) — {}", model, origin_,
           model.empty() || model == "none" ? "the file holds no tokenizer" : "this kind of tokenizer is not supported");
    }
    read_vocabulary();
    bool no_bos = false, add_bos = false, add_eos = false;
    if (model == "gpt2") {
      const GgufPre& pre = find_pre();
      read_merges();
      parts_.split_rules = pre.rules;
      split_at_lacking_bytes(parts_);
      parts_.ignore_merges = pre.ignore_merges;
      no_bos = pre.name.starts_with("glm") || pre.name == "chatglm-bpe";  // llama.cpp ignores theirs
      add_bos = pre.add_bos;
    } else if (model == "llama") {
      read_sentencepiece_bpe();
      add_bos = true;
    } else {
      read_unigram();
      add_eos = true;
    }
    TokenizerParts parts = std::move(parts_);
    // llama.cpp's own defaults where the file says nothing.
    const std::optional<int32_t> one = model == "llama" ? std::optional(1) : std::nullopt, two = model == "llama" ? 2 : 1, none;
    const auto bos = no_bos ? std::nullopt : special_id("bos_token_id", one);
    const auto eos = special_id("eos_token_id", model == "gpt2" ? none : two);
    add_bos = add_bos && bos.has_value();
    if (flag("add_bos_token", add_bos)) parts.before.push_back(need(bos, "bos_token_id", "add_bos_token"));
    if (flag("add_eos_token", add_eos)) parts.after.push_back(need(eos, "eos_token_id", "add_eos_token"));
    auto tokenizer = make_tokenizer(mark_control_texts(std::move(parts)));
    tokenizer->bos_id = bos;
    tokenizer->eos_id = eos;
    tokenizer->pad_id = special_id("padding_token_id");
    tokenizer->unk_id = special_id("unknown_token_id");
    name_special_tokens(*tokenizer);
    add_stop_ids(*tokenizer);
    return tokenizer;
  }

 private:
  static std::string key(const char* name) { return std::string("tokenizer.ggml.") + name; }
  bool flag(const char* name, bool absent) const { return file_.get_bool(key(name)).value_or(absent); }

  const GgufPre& find_pre() const {
    const std::string name = file_.get_string(key("pre")).value_or("");
    std::string known;
    for (const GgufPre& pre : known_gguf_pre()) {
      if (pre.name == name) return pre;
      known += (known.empty() ? "" : ", ") + std::string(pre.name);
    }
    fail("tokenizers", "expected a tokenizer.ggml.pre of {}; got '{}' ({}) — another pre-tokenizer would silently cut the text differently; convert the model again if the key is missing",
         known, name, origin_);
  }

  void read_vocabulary() {
    const auto* tokens = file_.get_strings(key("tokens"));
    if (tokens == nullptr) fail("tokenizers", "expected tokenizer.ggml.tokens, got no tokens ({}) — is the file whole?", origin_);
    const std::vector<int64_t>& types = types_ = file_.get_ints(key("token_type"));
    if (!types.empty() && types.size() != tokens->size()) {
      fail("tokenizers", "expected as many tokenizer.ggml.token_type as tokens ({}), got {} ({}) — is the file broken?", tokens->size(), types.size(), origin_);
    }
    parts_.origin = origin_;
    for (size_t i = 0; i < tokens->size(); ++i) {
      const auto id = static_cast<int32_t>(i);
      const std::string& token = (*tokens)[i];
      parts_.vocabulary.emplace_back(token, id);
      const int64_t type = types.empty() ? static_cast<int64_t>(kNormal) : types[i];
      if (token.empty() || (type != kControl && type != kUserDefined && type != kUnknown)) continue;
      parts_.added_tokens.push_back({.id = id, .content = token, .special = type != kUserDefined});
    }
  }

  void read_merges() {
    const auto* merges = file_.get_strings(key("merges"));
    if (merges == nullptr) fail("tokenizers", "expected tokenizer.ggml.merges, got no merges ({}) — is the file whole?", origin_);
    for (const std::string& merge : *merges) {
      const size_t space = merge.find(' ', 1);
      if (space == std::string::npos) fail("tokenizers", "expected merges as \"a b\", got '{}' ({}) — is the file broken?", merge, origin_);
      parts_.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
    }
  }

  int64_t type_of(size_t i) const { return types_.empty() ? static_cast<int64_t>(kNormal) : types_[i]; }
  void read_scores() {
    parts_.scores = file_.get_floats(key("scores"));
    if (parts_.scores.size() != parts_.vocabulary.size()) {
      fail("tokenizers", "expected as many tokenizer.ggml.scores as tokens ({}), got {} ({}) — is the file whole?", parts_.vocabulary.size(), parts_.scores.size(), origin_);
    }
    const auto unknown = special_id("unknown_token_id", parts_.vocabulary.size() > 2 ? std::optional(parts_.model == TokenModel::kUnigram ? 2 : 0) : std::nullopt);
    if (unknown) parts_.unknown_token = parts_.vocabulary[static_cast<size_t>(*unknown)].first;
    parts_.fuse_unknown = true;
  }

  // llama.cpp's SPM: a space before every piece of text, spaces as signs, neighbours joined by score, bytes for the rest.
  void read_sentencepiece_bpe() {
    parts_.model = TokenModel::kSymbolBpe;
    read_scores();
    parts_.byte_fallback = true;
    parts_.lead_byte_characters = true;
    const bool space = flag("add_space_prefix", true);
    parts_.decoding_drops_first_space = space;
    parts_.normalizer = Normalizer(SentencepieceStep{.add_space_before = space, .replaces_stray_bytes = false});
  }

  // llama.cpp's UGM: the library's normaliser, sums in double; user-defined tokens score 0.
  void read_unigram() {
    parts_.model = TokenModel::kUnigram;
    read_scores();
    const bool space = flag("add_space_prefix", true);
    SentencepieceStep step{.remove_extra_white_space = flag("remove_extra_whitespaces", false), .add_space_before = space,
                           .space_is_suffix = flag("treat_whitespace_as_suffix", false), .escape_white_space = flag("escape_whitespaces", true),
                           .only_before_letters = true};
    parts_.decoding_drops_first_space = space && !step.space_is_suffix;
    const std::vector<int64_t> bytes = file_.get_ints(key("precompiled_charsmap"));
    if (!bytes.empty()) {
      std::string map;
      for (const int64_t byte : bytes) map += static_cast<char>(byte);
      step.map = std::make_shared<Charsmap>(std::move(map));
    }
    parts_.least_score = std::numeric_limits<float>::max();
    for (size_t i = 0; i < parts_.vocabulary.size(); ++i) {
      const int64_t type = type_of(i);
      if (type == kNormal) parts_.least_score = std::min(parts_.least_score, parts_.scores[i]);
      if (type == kUserDefined) parts_.scores[i] = 0;
      parts_.unmatched.push_back(type != kNormal && type != kUserDefined && type != kUnused);
    }
    parts_.normalizer = Normalizer(std::move(step));
  }

  // Before the last rule, which makes the pieces bytes.
  static void split_at_lacking_bytes(TokenizerParts& parts) {
    ByteSet lacking = ByteSet().set();
    for (const auto& [token, id] : parts.vocabulary) {
      const auto bytes = token.size() <= 2 ? unspell_bytes(token) : std::nullopt;
      if (bytes && bytes->size() == 1) lacking.reset(static_cast<unsigned char>((*bytes)[0]));
    }
    const std::string pattern = first_bytes_pattern(lacking);
    if (!pattern.empty()) parts.split_rules.insert(parts.split_rules.end() - 1, SplitRule{.pattern = pattern});
  }

  TokenizerParts mark_control_texts(TokenizerParts parts) const {
    std::unordered_map<std::string_view, int32_t> ids;
    for (const auto& [token, id] : parts.vocabulary) ids.emplace(token, id);
    const auto mark = [&](const char* text) {
      const auto found = ids.find(text);
      if (found == ids.end()) return;
      for (AddedToken& token : parts.added_tokens) {
        if (token.id == found->second) {
          token.special = true;
          return;
        }
      }
      parts.added_tokens.push_back({.id = found->second, .content = text, .special = true});
    };
    for (const char* text : kControlTexts) mark(text);
    for (const char* text : kEndTexts) mark(text);
    mark("<|end|>");
    return parts;
  }

  std::optional<int32_t> special_id(const char* name, std::optional<int32_t> absent = std::nullopt) const {
    const auto id = file_.get_int(key(name));
    if (!id) return absent;
    if (*id == -1 || *id == 0xFFFFFFFF) return std::nullopt;  // some writers spell "none" so
    const auto count = static_cast<int64_t>(file_.get_strings(key("tokens"))->size());
    if (*id < 0 || *id >= count) fail("tokenizers", "expected tokenizer.ggml.{} below {}, got {} ({}) — is the file broken?", name, count, *id, origin_);
    return static_cast<int32_t>(*id);
  }
  int32_t need(std::optional<int32_t> id, const char* name, const char* because) const {
    if (!id) fail("tokenizers", "expected tokenizer.ggml.{}, which {} needs, got none ({}) — convert the model again", name, because, origin_);
    return *id;
  }

  void name_special_tokens(Tokenizer& tokenizer) const {
    const auto& tokens = *file_.get_strings(key("tokens"));
    const std::pair<const char*, std::optional<int32_t>> named[] = {
        {"bos_token", tokenizer.bos_id}, {"eos_token", tokenizer.eos_id}, {"unk_token", tokenizer.unk_id},
        {"sep_token", special_id("seperator_token_id")}, {"pad_token", tokenizer.pad_id}, {"mask_token", special_id("mask_token_id")}};
    for (const auto& [name, id] : named) {
      if (id) tokenizer.special_tokens[name] = tokens[static_cast<size_t>(*id)];
    }
  }

  void add_stop_ids(Tokenizer& tokenizer) const {
    std::vector<int32_t> ids = end_tokens_by_text(tokenizer);
    for (const char* name : {"eot_token_id", "eom_token_id"}) {
      if (const auto id = special_id(name)) ids.push_back(*id);
    }
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    std::erase_if(ids, [&](int32_t id) { return tokenizer.eos_id == id; });
    tokenizer.stop_ids = ids;
  }

  const GgufFile& file_;
  std::string origin_;
  TokenizerParts parts_;
  std::vector<int64_t> types_;
};

}  // namespace

std::shared_ptr<const Tokenizer> load_tokenizer(const GgufFile& file) { return Reader(file).read(); }

}  // namespace graft
