// llama.cpp leaves a byte that has no token out, but does not merge what stands beside it; the reference library merges across the
// gap. So a GGUF vocabulary without some bytes (SmolLM2 lacks a few control characters) gets one more split, around the characters
// that begin with these bytes. It is a pattern as any other, so a tokenizer.json holds it too and gives the same ids.
#pragma once
#include <bitset>
#include <optional>
#include <string>
#include <string_view>

namespace graft {

using ByteSet = std::bitset<256>;

// The pattern of all characters whose UTF-8 begins with one of `bytes`, as "[\x{4}\x{40000}-\x{7FFFF}]"; empty where there is none.
std::string first_bytes_pattern(const ByteSet& bytes);
// The set for which first_bytes_pattern() writes exactly this pattern, if there is one.
std::optional<ByteSet> read_first_bytes_pattern(std::string_view pattern);

}  // namespace graft
