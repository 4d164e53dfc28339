// What rendering a chat template gives, and what it may use.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace graft {

struct TextSpan { size_t begin = 0, end = 0; };   // byte offsets into the UTF-8 text, half-open

// What one rendering may use; past a bound it fails with the template's line.
struct RenderLimits {
  int64_t steps = 5'000'000;          // evaluated nodes, compared or printed elements, and 64-byte pieces of text worked on
  int call_depth = 200;               // macros calling macros
  int nesting = 200;                  // lists in lists, and generators over generators
  size_t output = size_t{16} << 20;   // bytes of rendered text, and of any one string
  size_t memory = size_t{128} << 20;  // bytes of all values alive
};

struct RenderedText {
  std::string text;
  std::vector<TextSpan> generation;   // what {% generation %} blocks wrote; empty when the template has none
};

}  // namespace graft
