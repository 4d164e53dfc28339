// A model directory in Hugging Face layout. Source of the rules: transformers 5.23, tokenization_utils_tokenizers.py.
#include <algorithm>
#include <unordered_map>

#include "checkpoints/strict_json.h"
#include "data/tokenizers/tokenizer_sources.h"
#include "kernels/common/error.h"

namespace graft {
namespace {

using nlohmann::json;

constexpr const char* kNamedTokens[] = {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};

json read_json_if_there(const std::filesystem::path& path) {
  return std::filesystem::exists(path) ? parse_strict_json(read_whole_file(path), path, "the file", 64) : json::object();
}

// A token of a config is a string, or an object with content and flags. A string is a special token.
struct ConfigToken {
  AddedToken token;  // id unset
  bool present = false;
};
ConfigToken config_token(const json& value, const std::string& where) {
  ConfigToken out;
  if (value.is_null()) return out;
  if (value.is_string()) {
    out.token.content = value.get<std::string>();
    out.token.special = true;
  } else if (value.is_object() && value.contains("content") && value["content"].is_string()) {
    out.token = {.content = value["content"].get<std::string>(), .special = true, .left_strip = flag(value, "lstrip", false),
                 .right_strip = flag(value, "rstrip", false), .single_word = flag(value, "single_word", false), .normalized = flag(value, "normalized", true)};
    if (value.contains("special")) out.token.special = flag(value, "special", false);
  } else {
    fail("tokenizers", "expected a string or an object with \"content\", got {} ({}) — is the file broken?", value.dump().substr(0, 80), where);
  }
  out.present = !out.token.content.empty();
  return out;
}

// BOS and EOS are put around the text as tokenizer.json's post-processor says; the config's add_bos_token and add_eos_token count
// nothing beside a tokenizer.json (transformers 5 drops them when it loads one).
class Directory {
 public:
  explicit Directory(const std::filesystem::path& path) : path_(path), config_(read_json_if_there(path / "tokenizer_config.json")) {
    if (!config_.is_object()) fail("tokenizers", "expected a JSON object, got {} ({}) — is the file broken?", config_.type_name(), (path / "tokenizer_config.json").string());
    parts_ = read_vocabulary_file(path, config_);
    for (const auto& [spelling, id] : parts_.vocabulary) vocabulary_.emplace(spelling, id);
  }

  std::shared_ptr<const Tokenizer> load() {
    add_tokens_of_decoder();
    collect_named_tokens();
    put_around();
    vocabulary_.clear();
    auto tokenizer = make_tokenizer(std::move(parts_));
    for (const auto& [name, content] : named_) tokenizer->special_tokens[name] = content;
    const auto id_of = [&](const char* name) { return id_named(*tokenizer, name); };
    tokenizer->bos_id = id_of("bos_token");
    tokenizer->eos_id = id_of("eos_token");
    tokenizer->pad_id = id_of("pad_token");
    tokenizer->unk_id = id_of("unk_token");
    read_stop_ids(*tokenizer);
    return tokenizer;
  }

 private:
  std::string where(const char* key) const { return fmt::format("{}, \"{}\"", (path_ / "tokenizer_config.json").string(), key); }

  std::optional<int32_t> find(const std::string& content) const {
    for (const AddedToken& token : parts_.added_tokens) {
      if (token.content == content) return token.id;
    }
    const auto found = vocabulary_.find(content);
    return found != vocabulary_.end() ? std::optional(found->second) : std::nullopt;
  }
  int32_t next_id() const {
    auto next = static_cast<int32_t>(vocabulary_.size());
    for (const AddedToken& token : parts_.added_tokens) next = std::max(next, token.id + 1);
    return next;
  }
  bool is_added(const std::string& content) const {
    return std::any_of(parts_.added_tokens.begin(), parts_.added_tokens.end(), [&](const AddedToken& token) { return token.content == content; });
  }
  // As the library: the id of the same text, else the next free one. A token that is there gets the new flags.
  int32_t add(AddedToken token) {
    token.id = find(token.content).value_or(next_id());
    for (AddedToken& known : parts_.added_tokens) {
      if (known.id == token.id) {
        known = token;
        return token.id;
      }
    }
    parts_.added_tokens.push_back(token);
    return token.id;
  }

  // "added_tokens_decoder": {"id": {content, flags}}.
  void add_tokens_of_decoder() {
    const json decoder = config_.value("added_tokens_decoder", json::object());
    if (!decoder.is_object()) return;
    std::vector<std::pair<int32_t, ConfigToken>> tokens;
    for (const auto& [key, value] : decoder.items()) {
      if (key.empty() || key.size() > 8 || key.find_first_not_of("0123456789") != std::string::npos) {
        fail("tokenizers", "expected ids as keys, got '{}' ({}) — is the file broken?", key, where("added_tokens_decoder"));
      }
      tokens.emplace_back(std::stoi(key), config_token(value, where("added_tokens_decoder")));
    }
    std::sort(tokens.begin(), tokens.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (auto& [id, entry] : tokens) {
      if (!entry.present) continue;
      const int32_t given = add(entry.token);
      if (given != id) {
        fail("tokenizers", "expected id {} for '{}', as in {}, got {} from tokenizer.json — the two files belong to different tokenizers", id, entry.token.content,
             where("added_tokens_decoder"), given);
      }
    }
  }

  void collect_named_tokens() {
    // Since added_tokens_decoder exists, special_tokens_map.json is history; without it, it overrides the config.
    const json map = config_.contains("added_tokens_decoder") ? json::object() : read_json_if_there(path_ / "special_tokens_map.json");
    const auto take = [&](const std::string& name, const json& value) {
      const ConfigToken entry = config_token(value, where(name.c_str()));
      if (!entry.present) return;
      named_.emplace_back(name, entry.token.content);
      if (!is_added(entry.token.content)) {
        AddedToken token = entry.token;
        token.special = true;  // what has a name is special
        add(token);
      }
    };
    for (const char* name : kNamedTokens) {
      if (map.is_object() && map.contains(name)) {
        take(name, map[name]);
      } else if (config_.contains(name)) {
        take(name, config_[name]);
      } else {
        for (const auto& [known, content] : parts_.named) {
          if (known == name) take(name, content);
        }
      }
    }
    // Further special tokens: a list, or names of the model's own ({"image_token": "<image>"}).
    for (const char* key : {"extra_special_tokens", "additional_special_tokens"}) {
      const json extra = config_.contains(key) ? config_[key] : map.is_object() ? map.value(key, json()) : json();
      if (extra.is_object()) {
        for (const auto& [name, value] : extra.items()) take(name, value);
      } else if (extra.is_array()) {
        for (const json& value : extra) {
          const ConfigToken entry = config_token(value, where(key));
          if (entry.present && !is_added(entry.token.content)) add(entry.token);
        }
      }
    }
  }

  // Files without a post-processor: BOS and EOS as the tokenizer's class puts them.
  void put_around() {
    const auto id_of = [&](const std::string& name) {
      for (const auto& [known, content] : named_) {
        if (known == name) return find(content);
      }
      fail("tokenizers", "expected a {}, which the tokenizer puts around a text, got none ({}) — name it in tokenizer_config.json", name, path_.string());
    };
    if (parts_.add_bos) parts_.before.push_back(*id_of("bos_token"));
    if (parts_.add_eos) parts_.after.push_back(*id_of("eos_token"));
  }

  std::optional<int32_t> id_named(const Tokenizer& tokenizer, const std::string& name) const {
    for (const auto& [known, content] : named_) {
      if (known == name) return tokenizer.token_id(content);
    }
    return std::nullopt;
  }

  void read_stop_ids(Tokenizer& tokenizer) const {
    const json generation = read_json_if_there(path_ / "generation_config.json");
    json ids = generation.is_object() ? generation.value("eos_token_id", json()) : json();
    if (!ids.is_array()) ids = ids.is_null() ? json::array() : json::array({ids});
    for (const json& id : ids) {
      if (!id.is_number_integer() || id < 0 || id >= tokenizer.vocab_size()) {
        fail("tokenizers", "expected eos_token_id below {}, got {} ({}) — the file belongs to another model", tokenizer.vocab_size(), id.dump().substr(0, 40),
             (path_ / "generation_config.json").string());
      }
      const auto value = id.get<int32_t>();
      if (tokenizer.eos_id != value && std::find(tokenizer.stop_ids.begin(), tokenizer.stop_ids.end(), value) == tokenizer.stop_ids.end()) {
        tokenizer.stop_ids.push_back(value);
      }
    }
  }

  std::filesystem::path path_;
  json config_;
  TokenizerParts parts_;
  std::unordered_map<std::string, int32_t> vocabulary_;
  std::vector<std::pair<std::string, std::string>> named_;  // special tokens by name, in order
};

}  // namespace

std::shared_ptr<const Tokenizer> load_tokenizer_directory(const std::filesystem::path& directory) { return Directory(directory).load(); }

}  // namespace graft
