// Base64 (RFC 4648, with padding), the form of bytes in tokenizer.json and tiktoken files.
#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace graft {

std::string to_base64(std::string_view bytes);
std::optional<std::string> from_base64(std::string_view text);

}  // namespace graft
