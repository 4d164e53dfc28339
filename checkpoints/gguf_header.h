// One GGUF file's header: metadata entries and tensors, checked against the file's size. GgufFile joins shards.
#pragma once
#include <cstddef>
#include <filesystem>
#include <span>
#include <vector>

#include "checkpoints/gguf_file.h"

namespace graft {

struct GgufHeader {
  std::vector<GgufEntry> metadata;
  std::vector<StoredTensor> tensors;  // their spans lie in `bytes`
};

// `bytes` is the whole file. UserError for everything that is not as the format says. Memory is bounded by the file's
// size: no count or length is believed before the bytes that it promises are known to be there.
GgufHeader parse_gguf_header(std::span<const std::byte> bytes, const std::filesystem::path& file);

const char* gguf_type_name(GgufType type);  // "uint32", "string", ...

}  // namespace graft
