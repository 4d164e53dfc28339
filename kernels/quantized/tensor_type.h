// How the elements of a stored tensor lie in memory, for every format that graft reads or writes.
// Block layouts: ggml (GGUF v3), and graft's own for codes and scales that files hold apart (block_layouts.h); plain types: safetensors.
#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

namespace graft {

enum class TensorType : uint8_t {
  kF64,
  kF32,
  kF16,
  kBF16,
  kI64,
  kI32,
  kI16,
  kI8,
  kU8,
  kBool,
  kF8E4M3,
  kF8E5M2,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kMXFP4,
  kIQ4_NL,
  kIQ4_XS,
  kNF4,
  kF8E4M3Scaled,
  kI8Scaled,
  kNVFP4,
  kI4_32,
  kI4_64,
  kI4_128,
  kI4_32Zero,
  kI4_64Zero,
  kI4_128Zero,
};

struct TensorTypeInfo {
  std::string_view name;   // "F32", "BF16", "Q4_K"
  int64_t block_elements;  // consecutive elements of a row that share a block; 1 for plain types
  int64_t block_bytes;     // bytes of one block
  bool quantized;          // block_elements > 1
};

const TensorTypeInfo& info(TensorType type);
std::optional<TensorType> tensor_type_from_name(std::string_view name);  // "Q4_1", "F16", ...
std::optional<TensorType> tensor_type_from_ggml(int32_t ggml_type);      // numbers of ggml_type
int32_t ggml_number(TensorType type);                                    // -1 where ggml has none

}  // namespace graft
