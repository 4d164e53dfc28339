// Which type each tensor of a GGUF file gets, given the file's format: the policy of llama.cpp's llama-quantize (gguf_mix.h).
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/quantized/tensor_type.h"

namespace graft {

// kMXFP4 is llama.cpp's MXFP4_MOE; of a model without experts, where llama.cpp has none, its matrices are MXFP4.
enum class GgufFormat {
  kF32, kF16, kBF16, kQ8_0, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ2_K, kQ3_K_S, kQ3_K_M, kQ3_K_L, kQ4_K_S, kQ4_K_M, kQ5_K_S, kQ5_K_M, kQ6_K, kIQ4_NL, kIQ4_XS, kMXFP4
};

std::optional<GgufFormat> gguf_format_from_name(std::string_view name);  // "F16", "Q4_K_M", ...
std::string_view gguf_format_name(GgufFormat format);
std::vector<std::string_view> gguf_format_names();  // for messages and --help
uint32_t gguf_file_type(GgufFormat format);         // the value of general.file_type (llama_ftype)
bool gguf_takes_importance(GgufFormat format);      // whether an importance matrix changes its bytes

std::optional<GgufFormat> gguf_format_of_file_type(int64_t file_type);

// What the policy looks at, besides the tensor itself.
struct GgufModelFacts {
  std::string architecture;       // general.architecture
  int num_layers = 0;             // block_count
  int num_experts = 0;            // expert_count; 0: no mixture of experts
  int heads_per_group = 1;        // attention.head_count by head_count_kv, of the first layer; 0 where that has no keys
  bool tied_embeddings = false;   // no output.weight: token_embd.weight is the head and gets its type
  bool has_importance = false;    // quantised with an importance matrix
  std::vector<int> value_layers;  // the layers with a tensor that gguf_holds_values, ascending; empty: all
};

// Whether a tensor holds attention's values (attn_v, attn_qkv, attn_kv_b): these get more bits.
bool gguf_holds_values(std::string_view name);

// `type`, or where its blocks do not fit the columns what llama.cpp takes in its place: Q2_K, Q3_K -> Q4_0, Q4_K -> Q5_0, Q5_K -> Q5_1, Q6_K -> Q8_0,
// IQ4_XS -> IQ4_NL, else F16.
TensorType fallback_type(TensorType type, int64_t columns);

// `name` is the GGUF name ("blk.3.attn_v.weight"), `shape` outermost first. F32 for vectors, norms and what is no weight;
// else fallback_type of the mix's choice.
TensorType gguf_type_for(GgufFormat format, std::string_view name, std::span<const int64_t> shape, const GgufModelFacts& model);

}  // namespace graft
