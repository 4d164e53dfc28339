// safetensors: a little-endian u64 header length, a JSON header {name: {dtype, shape, data_offsets}}, then the data without
// holes. Specification: https://huggingface.co/docs/safetensors
#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "checkpoints/tensor_source.h"

namespace graft {

struct SafetensorsHeader {
  std::map<std::string, std::string> metadata;  // "__metadata__", usually {"format": "pt"}
  std::vector<StoredTensor> tensors;            // in the order of their data; their spans lie in `bytes`
};

// `bytes` is the whole file. UserError for everything that is not as the format says: lengths past the file, holes, overlaps,
// misaligned or misshaped data, unknown types, names that occur twice.
SafetensorsHeader parse_safetensors_header(std::span<const std::byte> bytes, const std::filesystem::path& file);

class SafetensorsFile : public TensorSource {
 public:
  // A .safetensors file, or a directory that holds model.safetensors or else model.safetensors.index.json with its shards.
  // All shards and tensors that are absent, surplus or twice there are one UserError.
  explicit SafetensorsFile(const std::filesystem::path& file_or_directory);
  ~SafetensorsFile() override;
  void forget(std::span<const std::byte> bytes) const override;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }  // of the first file

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace graft
