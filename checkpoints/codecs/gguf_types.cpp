#include "checkpoints/codecs/gguf_types.h"

#include <algorithm>
#include <array>

#include "checkpoints/codecs/gguf_mix.h"

namespace graft {
namespace {

struct FormatRow {
  GgufFormat format;
  std::string_view name;
  uint32_t file_type;  // llama_ftype
  TensorType default_type;
};

constexpr std::array kFormats = {
    FormatRow{GgufFormat::kF32, "F32", 0, TensorType::kF32},             FormatRow{GgufFormat::kF16, "F16", 1, TensorType::kF16},
    FormatRow{GgufFormat::kBF16, "BF16", 32, TensorType::kBF16},         FormatRow{GgufFormat::kQ8_0, "Q8_0", 7, TensorType::kQ8_0},
    FormatRow{GgufFormat::kQ4_0, "Q4_0", 2, TensorType::kQ4_0},          FormatRow{GgufFormat::kQ4_1, "Q4_1", 3, TensorType::kQ4_1},
    FormatRow{GgufFormat::kQ5_0, "Q5_0", 8, TensorType::kQ5_0},          FormatRow{GgufFormat::kQ5_1, "Q5_1", 9, TensorType::kQ5_1},
    FormatRow{GgufFormat::kQ2_K, "Q2_K", 10, TensorType::kQ2_K},         FormatRow{GgufFormat::kQ3_K_S, "Q3_K_S", 11, TensorType::kQ3_K},
    FormatRow{GgufFormat::kQ3_K_M, "Q3_K_M", 12, TensorType::kQ3_K},     FormatRow{GgufFormat::kQ3_K_L, "Q3_K_L", 13, TensorType::kQ3_K},
    FormatRow{GgufFormat::kQ4_K_S, "Q4_K_S", 14, TensorType::kQ4_K},     FormatRow{GgufFormat::kQ4_K_M, "Q4_K_M", 15, TensorType::kQ4_K},
    FormatRow{GgufFormat::kQ5_K_S, "Q5_K_S", 16, TensorType::kQ5_K},     FormatRow{GgufFormat::kQ5_K_M, "Q5_K_M", 17, TensorType::kQ5_K},
    FormatRow{GgufFormat::kQ6_K, "Q6_K", 18, TensorType::kQ6_K},         FormatRow{GgufFormat::kIQ4_NL, "IQ4_NL", 25, TensorType::kIQ4_NL},
    FormatRow{GgufFormat::kIQ4_XS, "IQ4_XS", 30, TensorType::kIQ4_XS},   FormatRow{GgufFormat::kMXFP4, "MXFP4", 38, TensorType::kMXFP4},
};

const FormatRow& find(GgufFormat format) {
  for (const FormatRow& row : kFormats)
    if (row.format == format) return row;
  return kFormats[0];  // unreachable: every format has its row (tested)
}

// As ggml counts: the outermost dimensions of size 1 are none.
size_t num_dimensions(std::span<const int64_t> shape) {
  size_t count = shape.size();
  for (const int64_t size : shape) {
    if (size > 1) break;
    --count;
  }
  return count;
}

bool may_be_quantised(std::string_view name, std::span<const int64_t> shape) {
  constexpr std::string_view kNever[] = {"_norm.weight", "ffn_gate_inp.weight", "indexer.proj.weight", "ssm_conv1d", "shortconv.conv.weight", "position_embd"};
  return num_dimensions(shape) >= 2 && name.ends_with("weight") &&
         std::none_of(std::begin(kNever), std::end(kNever), [&](std::string_view part) { return name.find(part) != std::string_view::npos; });
}

}  // namespace

std::optional<GgufFormat> gguf_format_from_name(std::string_view name) {
  for (const FormatRow& row : kFormats)
    if (row.name == name) return row.format;
  return std::nullopt;
}

std::string_view gguf_format_name(GgufFormat format) { return find(format).name; }

std::vector<std::string_view> gguf_format_names() {
  std::vector<std::string_view> names;
  for (const FormatRow& row : kFormats) names.push_back(row.name);
  return names;
}

uint32_t gguf_file_type(GgufFormat format) { return find(format).file_type; }

bool gguf_takes_importance(GgufFormat format) {
  const TensorType type = find(format).default_type;
  return info(type).quantized && type != TensorType::kQ8_0;
}

std::optional<GgufFormat> gguf_format_of_file_type(int64_t file_type) {
  for (const FormatRow& row : kFormats)
    if (row.file_type == file_type) return row.format;
  return std::nullopt;
}

TensorType fallback_type(TensorType type, int64_t columns) {
  if (columns % info(type).block_elements == 0) return type;
  TensorType smaller = TensorType::kF16;
  if (type == TensorType::kQ2_K || type == TensorType::kQ3_K) smaller = TensorType::kQ4_0;
  if (type == TensorType::kIQ4_XS) smaller = TensorType::kIQ4_NL;
  if (type == TensorType::kQ4_K) smaller = TensorType::kQ5_0;
  if (type == TensorType::kQ5_K) smaller = TensorType::kQ5_1;
  if (type == TensorType::kQ6_K) smaller = TensorType::kQ8_0;
  return columns % info(smaller).block_elements == 0 ? smaller : TensorType::kF16;
}

TensorType gguf_type_for(GgufFormat format, std::string_view name, std::span<const int64_t> shape,
                         const GgufModelFacts& model) {
  if (!may_be_quantised(name, shape)) return TensorType::kF32;
  const FormatRow& row = find(format);
  if (!info(row.default_type).quantized) return row.default_type;
  return fallback_type(gguf_mixed_type(format, row.default_type, name, shape, model), shape.back());
}

}  // namespace graft
