// What llama, qwen2 and qwen3 share: configuration keys, GGUF keys and the Llama-style columns of the WeightMap.
#pragma once
#include <set>
#include <string>

#include "trainer/models/families/family.h"

namespace graft {

// Reads a config.json key by key and remembers what was read; finish() makes every key that nobody knows an error.
class ConfigReader {
 public:
  ConfigReader(const nlohmann::ordered_json& config, std::string family);
  int64_t need_int(const std::string& key, int64_t smallest = 1, int64_t largest = int64_t{1} << 31);
  double need_float(const std::string& key);
  int64_t int_or(const std::string& key, int64_t otherwise);
  double float_or(const std::string& key, double otherwise);
  bool bool_or(const std::string& key, bool otherwise);
  std::string string_or(const std::string& key, const std::string& otherwise);
  bool has(const std::string& key) const;                  // present and not null
  const nlohmann::ordered_json& at(const std::string& key);
  void ignore(std::initializer_list<const char*> keys);    // carries nothing that decides the computation
  void finish() const;                                     // UserError listing unknown keys
  [[noreturn]] void wrong(const std::string& key, const std::string& expected) const;

 private:
  const nlohmann::ordered_json& config_;
  std::string family_;
  std::set<std::string> read_;
};

// Everything but what the family sets itself. The reader is finished by the caller.
DecoderSpec llama_like_spec(ConfigReader& reader, const std::string& family);
DecoderSpec llama_like_spec(const GgufFile& file, const std::string& family);
WeightMap llama_like_weight_map(const DecoderSpec& spec, bool gguf_interleaved);

}  // namespace graft
