// Reads a config.json key by key and remembers what was read; finish() is one error that lists all missing, wrong and unknown keys.
#pragma once
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace graft {

class ConfigReader {
 public:
  ConfigReader(const nlohmann::ordered_json& config, std::string family);
  // A missing or ill-typed key is noted for finish(); the value returned until then is `smallest`, 1, or what `otherwise` says.
  int64_t need_int(const std::string& key, int64_t smallest = 1, int64_t largest = int64_t{1} << 31);
  double need_float(const std::string& key);
  int64_t int_or(const std::string& key, int64_t otherwise);
  double float_or(const std::string& key, double otherwise);
  bool bool_or(const std::string& key, bool otherwise);
  std::string string_or(const std::string& key, const std::string& otherwise);
  bool has(const std::string& key) const;                       // present and not null
  bool contains(const std::string& key) const { return config_.contains(key); }
  const nlohmann::ordered_json& at(const std::string& key);     // null when absent
  void ignore(std::initializer_list<const char*> keys);         // carries nothing that decides the computation
  void expect_false(std::initializer_list<const char*> keys);   // switches of forms that are not supported
  void wrong(const std::string& key, const std::string& expected);
  void finish() const;                                          // UserError listing everything

 private:
  const nlohmann::ordered_json& config_;
  std::string family_;
  std::set<std::string> read_;
  std::vector<std::string> missing_, wrong_;
};

}  // namespace graft
