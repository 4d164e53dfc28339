// Hyperparameters of a GGUF header below the architecture's name.
#pragma once
#include <string>
#include <vector>

#include "checkpoints/gguf_file.h"

namespace graft {

class GgufKeys {
 public:
  explicit GgufKeys(std::string architecture) : architecture_(std::move(architecture)) {}
  void u32(const std::string& key, int64_t value);      // a key that is there already is replaced
  void f32(const std::string& key, double value);
  void list(const std::string& key, const std::vector<int64_t>& values);   // of int32
  void text(const std::string& key, const std::string& value);
  void boolean(const std::string& key, bool value);
  void u32s(const std::string& key, const std::vector<uint32_t>& values);
  void erase(const std::string& key);
  const std::string& architecture() const { return architecture_; }
  const std::vector<GgufEntry>& entries() const { return entries_; }

 private:
  void set(GgufEntry entry);

  std::string architecture_;
  std::vector<GgufEntry> entries_;
};

// The same read, every value checked against its range. `key` without the architecture.
class GgufReader {
 public:
  explicit GgufReader(const GgufFile& file);
  int64_t need_int(const std::string& key, int64_t largest) const;   // from 1 on
  int64_t int_or(const std::string& key, int64_t otherwise) const;
  double need_float(const std::string& key) const;
  double float_or(const std::string& key, double otherwise) const;
  std::string text_or(const std::string& key, const std::string& otherwise) const;
  bool bool_or(const std::string& key, bool otherwise) const;
  std::vector<int64_t> ints(const std::string& key) const;           // empty when absent
  const GgufFile& file() const { return file_; }
  std::string name() const;                                          // for messages

 private:
  const GgufFile& file_;
  std::string prefix_;
};

}  // namespace graft
