// GGUF version 3 (and 2), little endian: metadata and tensors. Specification: ggml/docs/gguf.md.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "checkpoints/tensor_source.h"

namespace graft {

// A metadata value. Integers of every width are int64 / uint64 here; `GgufEntry::type` keeps the stored width.
using GgufValue = std::variant<uint64_t, int64_t, double, bool, std::string, std::vector<uint64_t>, std::vector<int64_t>,
                               std::vector<double>, std::vector<bool>, std::vector<std::string>>;

enum class GgufType : int32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12
};

struct GgufEntry {
  std::string key;
  GgufType type = GgufType::kString;          // of the value, or kArray
  GgufType element_type = GgufType::kString;  // of an array's elements
  GgufValue value;
};

// The entry of that key; null.
const GgufEntry* find_entry(std::span<const GgufEntry> metadata, std::string_view key);

class GgufFile : public TensorSource {
 public:
  // Opens `path` and, where it is the first of several shards, the others beside it (name-00001-of-0000N.gguf); the
  // metadata is the first shard's. UserError with file and tensor or key for anything that is not as the format says.
  explicit GgufFile(const std::filesystem::path& path);
  ~GgufFile() override;
  void forget(std::span<const std::byte> bytes) const override;
  const std::vector<GgufEntry>& metadata() const { return metadata_; }  // in the file's order
  const GgufEntry* find_key(std::string_view key) const;                // null when absent

  // Typed getters. get_*: nullopt when absent, UserError when of another kind. need_*: UserError also when absent.
  std::optional<std::string> get_string(std::string_view key) const;
  std::optional<int64_t> get_int(std::string_view key) const;
  std::optional<double> get_float(std::string_view key) const;
  std::optional<bool> get_bool(std::string_view key) const;
  const std::vector<std::string>* get_strings(std::string_view key) const;  // null when absent
  std::vector<int64_t> get_ints(std::string_view key) const;                // empty when absent
  std::vector<double> get_floats(std::string_view key) const;               // empty when absent
  std::string need_string(std::string_view key) const;
  int64_t need_int(std::string_view key) const;
  double need_float(std::string_view key) const;
  const std::filesystem::path& path() const { return path_; }

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
  std::filesystem::path path_;
  std::vector<GgufEntry> metadata_;
};

}  // namespace graft
