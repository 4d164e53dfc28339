// Memory-mapped, bounds-checked tensors of a file or of a sharded directory. Nothing is copied until it is asked for.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/quantized/tensor_type.h"

namespace graft {

struct StoredTensor {
  std::string name;
  TensorType type = TensorType::kF32;
  std::vector<int64_t> shape;        // outermost first, as torch: [out, in]; GGUF's ne[] reversed
  std::span<const std::byte> bytes;  // inside the mapping, which lives as long as the TensorSource
  std::filesystem::path file;        // which file holds it, for messages
  int64_t num_elements() const;
};

// Bytes that `shape` takes as `type`: rows (the innermost dimension) are whole blocks. Null when a dimension is negative,
// a row is no whole number of blocks, or the product does not fit in 63 bits.
std::optional<int64_t> bytes_of(TensorType type, std::span<const int64_t> shape);

class TensorSource {
 public:
  virtual ~TensorSource() = default;
  // In the file's order. Names are unique; every span was checked against its file when the source was opened.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  const StoredTensor* find(std::string_view name) const;  // null when absent
  // The files behind it, in order (for hashes and `inspect`).
  const std::vector<std::filesystem::path>& files() const { return files_; }
  // Of mapped files: these bytes were read and are not needed soon, so their pages go back to the page cache. What lies elsewhere stays.
  virtual void forget(std::span<const std::byte>) const {}
  // What was opened, where this holds the same tensors in another form: a GgufFile has metadata.
  virtual const TensorSource& opened() const { return *this; }

 protected:
  // To be called once tensors_ is complete: makes find() fast. Names that occur twice are one UserError that lists them all.
  void index_tensors();

  std::vector<StoredTensor> tensors_;
  std::vector<std::filesystem::path> files_;

 private:
  std::vector<size_t> by_name_;  // indices into tensors_, sorted by name
};

// A .gguf file (first shard of several is enough), a .safetensors file, or a directory that holds model.safetensors or
// model.safetensors.index.json. Errors: [graft.checkpoints] with file and tensor; .bin/.pt/.pth name the conversion.
std::unique_ptr<TensorSource> open_tensors(const std::filesystem::path& path);

// The Python files of a model directory (any depth), sorted: graft never executes them, and `plan` says so.
std::vector<std::filesystem::path> python_files(const std::filesystem::path& model_directory);

}  // namespace graft
