#include "checkpoints/codecs/gguf_types.h"

#include <array>
#include <charconv>

namespace graft {
namespace {

struct Format {
  GgufFormat format;
  std::string_view name;
  uint32_t file_type;  // llama_ftype
  TensorType default_type;
};

constexpr std::array kFormats = {
    Format{GgufFormat::kF32, "F32", 0, TensorType::kF32},         Format{GgufFormat::kF16, "F16", 1, TensorType::kF16},
    Format{GgufFormat::kBF16, "BF16", 32, TensorType::kBF16},     Format{GgufFormat::kQ8_0, "Q8_0", 7, TensorType::kQ8_0},
    Format{GgufFormat::kQ4_0, "Q4_0", 2, TensorType::kQ4_0},      Format{GgufFormat::kQ4_1, "Q4_1", 3, TensorType::kQ4_1},
    Format{GgufFormat::kQ5_0, "Q5_0", 8, TensorType::kQ5_0},      Format{GgufFormat::kQ5_1, "Q5_1", 9, TensorType::kQ5_1},
    Format{GgufFormat::kQ6_K, "Q6_K", 18, TensorType::kQ6_K},     Format{GgufFormat::kQ4_K_M, "Q4_K_M", 15, TensorType::kQ4_K},
    Format{GgufFormat::kQ5_K_M, "Q5_K_M", 17, TensorType::kQ5_K},
};

const Format& find(GgufFormat format) {
  for (const Format& row : kFormats)
    if (row.format == format) return row;
  return kFormats[0];  // unreachable: every format has its row (tested)
}

bool contains(std::string_view name, std::string_view part) { return name.find(part) != std::string_view::npos; }

// 3 of "blk.3.attn_v.weight"; -1 outside the layers.
int layer_of(std::string_view name) {
  int layer = -1;
  if (name.starts_with("blk.")) std::from_chars(name.data() + 4, name.data() + name.size(), layer);
  return layer;
}

bool may_be_quantised(std::string_view name, std::span<const int64_t> shape) {
  return shape.size() >= 2 && name.ends_with("weight") && !contains(name, "_norm.weight") &&
         !contains(name, "ffn_gate_inp.weight") && !contains(name, "indexer.proj.weight") && !contains(name, "ssm_conv1d") && !contains(name, "shortconv.conv.weight");
}

// The first and last eighth of the layers, and every third between: where errors cost most.
bool layer_gets_more_bits(int layer, int num_layers) {
  const int eighth = num_layers / 8;
  return layer < eighth || layer >= 7 * num_layers / 8 || (layer - eighth) % 3 == 2;
}

TensorType mixed_type(const Format& format, std::string_view name, std::span<const int64_t> shape,
                      const GgufModelFacts& model) {
  const TensorType type = format.default_type;
  if (name == "output.weight" || (model.tied_embeddings && name == "token_embd.weight")) {
    const bool fits = shape.back() % info(type).block_elements == 0;
    return !fits || type == TensorType::kQ8_0 ? TensorType::kQ8_0 : TensorType::kQ6_K;
  }
  const bool medium = format.format == GgufFormat::kQ4_K_M || format.format == GgufFormat::kQ5_K_M;
  const bool more_bits = medium && layer_gets_more_bits(layer_of(name), model.num_layers);
  if (contains(name, "attn_v.weight")) {
    if (model.num_experts == 8) return TensorType::kQ8_0;
    if (more_bits) return TensorType::kQ6_K;
    // Models of the 70B size (80 layers) with few key-value heads: attn_v is small and shared by many heads.
    const bool shared_by_many_heads = model.num_layers == 80 && shape[shape.size() - 2] < shape.back();
    return shared_by_many_heads && type == TensorType::kQ4_K ? TensorType::kQ5_K : type;
  }
  if (contains(name, "attn_k.weight") && model.num_experts == 8) return TensorType::kQ8_0;
  if (contains(name, "ffn_down") && more_bits) return TensorType::kQ6_K;
  if (contains(name, "attn_output.weight") && model.num_experts == 8 && format.format == GgufFormat::kQ4_K_M)
    return TensorType::kQ5_K;
  if (contains(name, "attn_qkv.weight") && more_bits) return TensorType::kQ6_K;
  return type;
}

TensorType fallback(TensorType type, int64_t columns) {
  if (columns % info(type).block_elements == 0) return type;
  TensorType smaller = TensorType::kF16;
  if (type == TensorType::kQ4_K) smaller = TensorType::kQ5_0;
  if (type == TensorType::kQ5_K) smaller = TensorType::kQ5_1;
  if (type == TensorType::kQ6_K) smaller = TensorType::kQ8_0;
  return columns % info(smaller).block_elements == 0 ? smaller : TensorType::kF16;
}

}  // namespace

std::optional<GgufFormat> gguf_format_from_name(std::string_view name) {
  for (const Format& row : kFormats)
    if (row.name == name) return row.format;
  return std::nullopt;
}

std::string_view gguf_format_name(GgufFormat format) { return find(format).name; }

std::vector<std::string_view> gguf_format_names() {
  std::vector<std::string_view> names;
  for (const Format& row : kFormats) names.push_back(row.name);
  return names;
}

uint32_t gguf_file_type(GgufFormat format) { return find(format).file_type; }

std::optional<GgufFormat> gguf_format_of_file_type(int64_t file_type) {
  for (const Format& row : kFormats)
    if (row.file_type == file_type) return row.format;
  return std::nullopt;
}

TensorType gguf_type_for(GgufFormat format, std::string_view name, std::span<const int64_t> shape,
                         const GgufModelFacts& model) {
  if (!may_be_quantised(name, shape)) return TensorType::kF32;
  const Format& row = find(format);
  if (!info(row.default_type).quantized) return row.default_type;
  return fallback(mixed_type(row, name, shape, model), shape.back());
}

}  // namespace graft
