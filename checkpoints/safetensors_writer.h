// Writes safetensors files as the safetensors library does: header ordered by type size then name and padded to 8 bytes.
#pragma once
#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoints/streamed_file.h"
#include "checkpoints/tensor_declaration.h"

namespace graft {

using SafetensorsMetadata = std::map<std::string, std::string>;

// One file. The bytes of each tensor are written once, in any order; the file gets its name in finish().
class SafetensorsWriter {
 public:
  // UserError for a name that occurs twice or is "__metadata__", and for a type that safetensors does not have.
  SafetensorsWriter(const std::filesystem::path& path, const std::vector<TensorDeclaration>& tensors,
                    const SafetensorsMetadata& metadata = {{"format", "pt"}});
  void write(std::string_view name, std::span<const std::byte> bytes) { file_.write(name, bytes); }
  void finish() { file_.finish(); }

 private:
  StreamedFile file_;
};

// model.safetensors in a folder, or, above `max_shard_bytes`, model-00001-of-0000N.safetensors with their index. Tensors fill
// the shards in the order of their declaration; the index is written last.
class SafetensorsDirectoryWriter {
 public:
  SafetensorsDirectoryWriter(const std::filesystem::path& directory, const std::vector<TensorDeclaration>& tensors,
                             uint64_t max_shard_bytes = uint64_t{5'000'000'000},
                             const SafetensorsMetadata& metadata = {{"format", "pt"}});
  void write(std::string_view name, std::span<const std::byte> bytes);
  void finish();
  size_t num_shards() const { return shards_.size(); }

 private:
  std::filesystem::path directory_;
  std::vector<SafetensorsWriter> shards_;
  std::vector<std::string> file_names_;                  // of the shards
  std::map<std::string, size_t, std::less<>> shard_of_;  // tensor -> shard
  uint64_t total_bytes_ = 0;
};

}  // namespace graft
