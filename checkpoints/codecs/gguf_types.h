// Which type each tensor of a GGUF file gets, given the file's format: the policy of llama.cpp's llama-quantize without an
// importance matrix, so that our Q4_K_M is the one that people know.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/quantized/tensor_type.h"

namespace graft {

enum class GgufFormat { kF32, kF16, kBF16, kQ8_0, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ6_K, kQ4_K_M, kQ5_K_M };

std::optional<GgufFormat> gguf_format_from_name(std::string_view name);  // "F16", "Q4_K_M", ...
std::string_view gguf_format_name(GgufFormat format);
std::vector<std::string_view> gguf_format_names();  // for messages and --help
uint32_t gguf_file_type(GgufFormat format);         // the value of general.file_type (llama_ftype)

std::optional<GgufFormat> gguf_format_of_file_type(int64_t file_type);

// What the policy looks at, besides the tensor itself.
struct GgufModelFacts {
  int num_layers = 0;
  int num_experts = 0;           // 0: no mixture of experts
  bool tied_embeddings = false;  // no output.weight: token_embd.weight is the head and gets its type
};

// `name` is the GGUF name ("blk.3.attn_v.weight"), `shape` outermost first. F32 for vectors, norms and what is no weight;
// a type whose blocks do not fit the columns falls back: Q4_K -> Q5_0, Q5_K -> Q5_1, Q6_K -> Q8_0, else F16.
TensorType gguf_type_for(GgufFormat format, std::string_view name, std::span<const int64_t> shape, const GgufModelFacts& model);

}  // namespace graft
