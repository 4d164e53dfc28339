// Which tensors a form stores in more bits than the rest: the mixes of llama.cpp's llama-quantize ("S", "M", "L"), so that our Q4_K_M is the one that people
// know. tests/checkpoints/gguf_mixes.txt holds what it chose for models of many shapes.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>

#include "checkpoints/codecs/gguf_types.h"

namespace graft {

// Of a tensor that may be quantised, for a form of which `type` is the usual one; blocks may still not fit its columns.
TensorType gguf_mixed_type(GgufFormat format, TensorType type, std::string_view name, std::span<const int64_t> shape, const GgufModelFacts& model);

}  // namespace graft
