// The metadata part of a GGUF header: `count` entries of key, type and value.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "checkpoints/byte_cursor.h"
#include "checkpoints/gguf_file.h"

namespace graft {

inline constexpr uint64_t kGgufMostReserved = 1 << 16;  // entries or tensors for which room is made before they are seen
inline constexpr const char* kGgufCopyAgain = "the file is damaged; copy or convert it again";

// A length and its bytes. `what` names the text in the error.
std::string_view read_gguf_text(ByteCursor& cursor, std::string_view what);

// UserError for a key that occurs twice, an unknown type, an array of arrays, and lengths beyond the file or every known model.
std::vector<GgufEntry> read_gguf_metadata(ByteCursor& cursor, uint64_t count);

}  // namespace graft
