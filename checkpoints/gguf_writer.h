// Writes GGUF version 3 in bounded memory: metadata and tensor table first, then each tensor's bytes, in any order.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoints/gguf_file.h"
#include "checkpoints/streamed_file.h"
#include "checkpoints/tensor_declaration.h"

namespace graft {

// Metadata entries of the types that models use; any other is a GgufEntry with its type set by hand.
GgufEntry gguf_string(std::string key, std::string value);
GgufEntry gguf_u32(std::string key, uint32_t value);
GgufEntry gguf_i32(std::string key, int32_t value);
GgufEntry gguf_u64(std::string key, uint64_t value);
GgufEntry gguf_f32(std::string key, float value);
GgufEntry gguf_bool(std::string key, bool value);
GgufEntry gguf_strings(std::string key, std::vector<std::string> values);
GgufEntry gguf_i32s(std::string key, std::vector<int32_t> values);
GgufEntry gguf_u32s(std::string key, std::vector<uint32_t> values);
GgufEntry gguf_f32s(std::string key, std::vector<float> values);

class GgufWriter {
 public:
  // Tensors keep the order of their declaration; data is aligned to general.alignment, 32 where the metadata has none.
  // UserError for names that occur twice, tensor names of 64 bytes and more (llama.cpp refuses them), a type that ggml lacks,
  // 0 or more than 4 dimensions, rows that cut a block, and values that do not fit their entry's type.
  GgufWriter(const std::filesystem::path& path, const std::vector<GgufEntry>& metadata,
             const std::vector<TensorDeclaration>& tensors);
  void write(std::string_view name, std::span<const std::byte> bytes) { file_.write(name, bytes); }
  void finish() { file_.finish(); }

 private:
  StreamedFile file_;
};

}  // namespace graft
